"""The paper's Figures 2 and 3 and its Table 2 in small, on real data: python benchmarks/design_space.py

Networks of about 200,000 parameters learn 14 x 14 digits (mnist_5k) for the same number of images: one as each column
of Karras et al. (2022), Table 1, trains, and as VP and VE go step by step to EDM's training (columns A to F of Table
2). Then each column's own sampler and EDM's draw from each column's network at rising numbers of denoiser calls.

Writes docs/design-space.md and docs/figures/design-space.png. Trained networks stay in --folder and are not trained
again; the same command after an interruption goes on.

Claim: the paper's Figures 2 and 3 and Table 2 in small ([docs/design-space.md](docs/design-space.md))"""

import argparse
import json
import math
from pathlib import Path

import jax
import numpy as np

from jaxdiff import metrics
from jaxdiff.numerics.files import write
from jaxdiff.recipes.images import default, design_space, load, train
from jaxdiff.runs.drawing import samples
from jaxdiff.runs.model import Request

COLUMNS = {"VP": ("vp", "vp-C"), "VE": ("ve", "ve-C"), "iDDPM + DDIM": ("iddpm", "iddpm-C"), "EDM": ("edm", "vp-E")}
"""Column -> (its name in the design space, the network that was trained so)."""
CALLS = (7, 15, 31, 63)
STEPS, BATCH = 1000, 32
SAMPLES, FINAL_SAMPLES, FINAL_STEPS = 500, 1000, 18
COMPONENTS = 64

AS_PUBLISHED = {"name": "ddpmpp", "width": 12, "multipliers": (1, 3), "blocks": 1, "attention": (7,), "dropout": 0.0}
WIDE_AT_THE_TOP = AS_PUBLISHED | {"multipliers": (2, 2)}
LETTERS = {
    "A": "the column's own training, learning rate 2e-4",
    "B": "and learning rate 1e-3, a shorter average",
    "C": "and DDPM++ for both, with more of its channels at the full resolution",
    "D": "and EDM's preconditioning",
    "E": "and EDM's noise distribution and loss weight",
    "F": "and augmentation (scale, rotation, anisotropy, translation)",
}


def experiment(name):
    """The config of a run such as "ve-D"."""
    column, letter = name.split("-")
    config = default()
    config.data = {"name": "mnist_5k", "shrink": 2}
    config.network = WIDE_AT_THE_TOP if letter >= "C" else AS_PUBLISHED
    if column == "ve" and letter < "C":
        config.network = AS_PUBLISHED | {"name": "ncsnpp"}
    rows = {}
    if letter >= "D":
        rows |= {"preconditioning": "edm"}
    if letter >= "E":
        rows |= {"noise": "edm", "weight": "edm"} | ({"process": "edm"} if column == "vp" else {})
    for field, value in design_space.training(column, **rows).items():
        config[field] = value
    if letter >= "F":
        config.augment = {"name": "pipeline", "p": 0.12, "xflip": 0, "yflip": 0}
    config.train.steps, config.train.batch_size = STEPS, BATCH
    config.train.learning_rate = 2e-4 if letter == "A" else 1e-3
    config.train.warmup = 5_000
    config.train.ema_half_life = 20_000 if letter == "A" else 5_000
    config.train.save_every, config.train.log_every = 500, 100
    config.evaluate.curve = ()
    return config


def runs():
    letters = [f"{column}-{letter}" for letter in "CEDABF" for column in ("vp", "ve")]
    return ["vp-C", "ve-C", "iddpm-C", "vp-E", *letters[4:], "ve-E"]


class Judge:
    """Frechet distances of samples to the training images in their first principal components, and real data's own."""

    def __init__(self, images, held_out):
        self.train, self.features = images, metrics.pca(images.to_model(), COMPONENTS)
        self.reference = metrics.moments(self.features(images.to_model()))
        self.real = self.features(held_out.to_model())

    def __call__(self, pixels):
        x = type(self.train)("samples", pixels, levels=self.train.levels).to_model()
        return metrics.frechet_distance(metrics.moments(self.features(x)), self.reference)

    def floor(self, n):
        """What n held-out images get: the mean over draws of as many, where there are more."""
        rng = np.random.default_rng(0)
        draws = [self.real[rng.permutation(len(self.real))[:n]] for _ in range(8 if n < len(self.real) else 1)]
        return float(np.mean([metrics.frechet_distance(metrics.moments(x), self.reference) for x in draws]))


def own_and_edm(column, calls):
    """(specs of the column's own sampler and of EDM's) at about that many denoiser calls, with the calls of each."""
    for name in dict.fromkeys((column, "edm")):
        second = design_space.SAMPLING[name]["solver"]["alpha"] is not None
        steps = (calls + 1) // 2 if second else calls
        yield name, design_space.sampler(name, steps=steps), 2 * steps - 1 if second else steps


def measure(folder, found):
    """Fill `found` with every figure that it lacks, and keep it on disk after each."""
    judges = {}

    def figure(key, name, spec, n):
        if key in found:
            return
        trained = load(folder / name)
        judge = judges.setdefault("one", Judge(*trained.data()))
        pixels, _ = samples(trained.model.plan(Request(spec)), n, seed=3)
        found[key] = judge(pixels)
        found.setdefault(f"floor/{n}", judge.floor(n))
        write(folder / "figures.json", json.dumps(found, indent=1))
        print(f"{key}: {found[key]:.3f} (real data {found[f'floor/{n}']:.3f})", flush=True)

    for title, (column, name) in COLUMNS.items():
        for budget in CALLS:
            for sampler, spec, calls in own_and_edm(column, budget):
                figure(f"{title}/{sampler}/{calls}", name, spec, SAMPLES)
    for column in ("vp", "ve"):
        for letter in LETTERS:
            network = "vp-E" if (column, letter) == ("vp", "E") else f"{column}-{letter}"
            figure(f"{column}-{letter}", network, design_space.sampler("edm", steps=FINAL_STEPS), FINAL_SAMPLES)


def page(found):
    """docs/design-space.md."""
    lines = [
        "# The design space in small",
        "",
        "Written by `python benchmarks/design_space.py`: the paper's Figures 2 and 3 and Table 2 (Karras et al. 2022),",
        "with networks of about 200,000 parameters on 4,000 digits of 14 x 14 pixels (`mnist_5k`), and",
        f"{STEPS * BATCH:,} images of training each. Frechet distance in the first {COMPONENTS} principal components",
        f"of the training pixels; real held-out digits get {found[f'floor/{SAMPLES}']:.2f} at {SAMPLES} images and",
        f"{found[f'floor/{FINAL_SAMPLES}']:.2f} at {FINAL_SAMPLES:,}.",
        "",
        "![Frechet distance by denoiser calls](figures/design-space.png)",
        "",
        f"## Samplers, on one network a column ({SAMPLES} samples)",
        "",
        "| column | sampler | " + " | ".join(f"{c} calls" for c in CALLS) + " |",
        "|---|---|" + "---|" * len(CALLS),
    ]
    for title, (column, _) in COLUMNS.items():
        for sampler in dict.fromkeys((column, "edm")):
            row = [found[f"{title}/{sampler}/{calls}"] for calls in CALLS]
            name = "EDM's (Heun)" if sampler == "edm" else "its own (Euler)"
            lines.append(f"| {title} | {name} | " + " | ".join(f"{v:.2f}" for v in row) + " |")
    lines += [
        "",
        f"## Trainings, all sampled by EDM's sampler at {2 * FINAL_STEPS - 1} calls ({FINAL_SAMPLES:,} samples)",
        "",
        "| | | VP | VE |",
        "|---|---|---|---|",
    ]
    for letter, meaning in LETTERS.items():
        lines.append(f"| {letter} | {meaning} | {found[f'vp-{letter}']:.2f} | {found[f've-{letter}']:.2f} |")
    lines += [
        "",
        f"One seed each. Every image is seen {STEPS * BATCH // 4000} times, too seldom to be overfitted, which is what",
        "augmentation is against; the paper's networks see CIFAR-10's 4,000 times. Half of VE's own steps are at noise",
        "levels above 1.4.",
    ]
    return "\n".join([*lines, ""])


def picture(found):
    """docs/figures/design-space.png, as bytes."""
    import io

    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.2), layout="constrained")
    axes = figure.subplots(1, len(COLUMNS), sharey=True)
    for axis, (title, (column, _)) in zip(axes, COLUMNS.items(), strict=True):
        for sampler in dict.fromkeys((column, "edm")):
            values = [found[f"{title}/{sampler}/{calls}"] for calls in CALLS]
            label = "EDM's sampler" if sampler == "edm" else "its own sampler"
            axis.loglog(CALLS, values, marker="o", label=label, color="C0" if sampler == "edm" else "C1")
        axis.axhline(found[f"floor/{SAMPLES}"], color="grey", linestyle=":", label="real digits")
        axis.set_title(f"network of column {title}", fontsize=9)
        axis.set_xlabel("denoiser calls")
        axis.set_xticks(CALLS, [str(c) for c in CALLS])
        axis.minorticks_off()
    axes[0].set_ylabel("Frechet distance (64 components)")
    axes[0].legend(fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/design-space"))
    parser.add_argument("--docs", type=Path, default=Path(__file__).parent.parent / "docs")
    parser.add_argument("--part", type=int, default=0, help="with --parts: train these runs alone, and measure nothing")
    parser.add_argument("--parts", type=int, default=1)
    options = parser.parse_args()
    for i, name in enumerate(dict.fromkeys(runs())):
        if i % options.parts == options.part:
            print(f"training {name}", flush=True)
            if train(experiment(name), options.folder / name).status != "finished":
                return  # the same command goes on
            jax.clear_caches()
    if options.parts > 1:
        return
    kept = options.folder / "figures.json"
    found = json.loads(kept.read_text()) if kept.is_file() else {}
    measure(options.folder, found)
    assert all(map(math.isfinite, found.values()))
    (options.docs / "figures").mkdir(exist_ok=True)
    write(options.docs / "design-space.md", page(found))
    write(options.docs / "figures" / "design-space.png", picture(found))
    print(page(found))


if __name__ == "__main__":
    main()
