"""How likely models find real images: python benchmarks/bits.py

On scikit-learn's digits (8 x 8, 17 grey levels) and on mnist_5k (14 x 14, 256 levels) the same network is trained three
ways: VP and sub-VP by the likelihood-weighted loss at importance-sampled times, on dequantised images (Song et al.
2021), and VDM by its whole bound with a learned log-SNR, on whole grey levels (Kingma et al. 2021). Then each is
measured on held-out images in bits per dimension, by its variational bound and by its probability flow, and the
variance of its training loss at uniform and at importance-sampled times.

Writes docs/bits-per-dim.md. Trained networks and figures stay in --folder and are not made again; the same command
after an interruption goes on.

Claim: bits/dim on real images ([docs/bits-per-dim.md](docs/bits-per-dim.md))"""

import argparse
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import grids, losses, parameterizations
from jaxdiff.numerics.files import write
from jaxdiff.recipes.images import MEASURES, default, load, train
from jaxdiff.runs.measure import evaluate

DATA = {
    "digits": (
        {"name": "digits"},
        (3, 4),
        {"network": {"width": 32}, "steps": 2000, "batch": 128, "images": {"vp": 0, "subvp": 0, "vdm": 0}},
    ),
    "mnist_5k": (
        {"name": "mnist_5k", "shrink": 2},
        (7, 8),
        {
            "network": {"width": 24, "head": 24},
            "steps": 1200,
            "batch": 64,
            "images": {"vp": 500, "subvp": 500, "vdm": 200},
        },
    ),
}
"""Data -> (its spec, the octaves of VDM's Fourier features, sizes)."""
MODELS = ("vp", "subvp", "vdm")
TITLES = {"vp": "VP", "subvp": "sub-VP", "vdm": "VDM, learned log-SNR"}
LOW = {"vp": 1e-5, "subvp": 6e-3}
"""Where training times end: sigma is .001 there, half of that from which the likelihood is measured."""
DRAWS = 40


def experiment(data, model):
    """The config of a run."""
    spec, octaves, size = DATA[data]
    config = default()
    config.data = spec
    config.row = {"name": "noise"}
    config.network = {"name": "UNet", "multipliers": (1, 2), "blocks": 1, "attention": (1,)} | size["network"]
    if model == "vdm":
        config.process = {"name": "learned"}
        config.loss = {"name": "vdm"}
        config.times = {"name": "lattice_times", "low": 0.0}
        config.network.fourier = octaves
    else:
        config.dequantize = True
        config.process = {"name": model}
        config.loss_row, config.weight = {"name": "score"}, {"name": "likelihood"}
        config.times = {"name": "importance_times", "low": LOW[model]}
    config.train.steps, config.train.batch_size = size["steps"], size["batch"]
    config.train.learning_rate = 1e-3
    config.train.ema_half_life = 10_000
    config.train.save_every, config.train.log_every = 500, 100
    config.likelihood.images = size["images"][model]
    config.evaluate.curve = ()
    return config


def variances(workdir, low):
    """{law: (mean, variance) of the likelihood loss of one example at one time of the law}, in bits/dim."""
    trained = load(workdir)
    process, held_out, denoiser = trained.model.process, trained.data()[1], trained.model.denoiser
    loss = losses.matching(process, parameterizations.score, losses.weights.likelihood)
    x, labels, n = held_out.to_model(), held_out.labels, len(held_out)
    bits = 0.5 / (x[0].size * math.log(2))

    @jax.jit
    def values(key, x, labels, t, weight):
        return bits * weight * jax.vmap(lambda k, x, c, t: loss(k, denoiser(c), x, t))(key, x, labels, t)

    found = {}
    for name in ("uniform_times", "importance_times"):
        draws = []
        for i in range(DRAWS):
            time_key, key = jax.random.split(jax.random.fold_in(jax.random.key(5), i))
            t, weight = getattr(grids, name)(time_key, process, n, low=low)
            keys = jax.random.split(key, n)
            draws.append(np.asarray(values(keys, jnp.asarray(x), jnp.asarray(labels), t, weight), np.float64))
        draws = np.concatenate(draws)
        found[name] = {"mean": draws.mean(), "variance": draws.var(ddof=1), "n": draws.size}
    return found


def page(found, chosen):
    """docs/bits-per-dim.md, of the chosen data."""
    options = "" if list(chosen) == list(DATA) else f" --data {' '.join(chosen)}"
    lines = [
        "# Bits per dimension on real images",
        "",
        f"Written by `python benchmarks/bits.py{options}` on {jax.devices()[0].device_kind}: one small U-Net a data",
        "set, trained three ways, one seed each, and measured on held-out images given their class.",
        "[likelihood.md](likelihood.md) says what the figures are. The interval is 95 % over images; `bound - flow` is",
        "the mean of the difference image by image, with its standard error: two models of one score, of which neither",
        "bounds the other.",
        "",
    ]
    for data in chosen:
        size = DATA[data][2]
        levels = found[f"{data}/vp"]["levels"]
        lines += [
            f"## {data}: {levels} levels, a uniform guess {math.log2(levels):.3f}",
            "",
            f"{size['steps']:,} steps of {size['batch']} images.",
            "",
            "| model | images | variational bound | 95 % interval | probability flow | 95 % interval | bound - flow |",
            "|---|---|---|---|---|---|---|",
        ]
        for model in MODELS:
            row = found[f"{data}/{model}"]
            cells = [str(row["images"])]
            for name in ("elbo", "flow"):
                low, high = row["bits"][name]["interval"]
                cells += [f"{row['bits'][name]['mean']:.3f}", f"{low:.3f} to {high:.3f}"]
            gap = row["elbo_minus_flow"]
            lines.append(f"| {TITLES[model]} | {' | '.join(cells)} | {gap['mean']:+.4f} +- {gap['stderr']:.4f} |")
        lines += ["", "Of VDM's bound, in bits per dimension:", ""]
        terms = found[f"{data}/vdm"]["bits"]["elbo"]["terms"]
        lines += [f"- {name}: {value:.4f}" for name, value in terms.items()]
        ends = found[f"{data}/vdm/ends"]
        lines += [
            "",
            f"Its learned log-SNR goes from {-ends['gamma0']:.2f} at the data to {-ends['gamma1']:.2f} (it began at",
            "13.3 and -5).",
            "",
        ]
    lines += [
        "## Uniform against importance-sampled time",
        "",
        "The likelihood loss g^2 / 2 |score error|^2 of one image at one time, in bits per dimension: the same mean,",
        "and the variance of an estimate from one draw.",
        "",
        "| data | process | mean, uniform | mean, importance | variance, uniform | variance, importance | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for data in chosen:
        for model in ("vp", "subvp"):
            a, b = (found[f"{data}/{model}/variance"][name] for name in ("uniform_times", "importance_times"))
            means = [f"{row['mean']:.3f} +- {math.sqrt(row['variance'] / row['n']):.3f}" for row in (a, b)]
            lines.append(
                f"| {data} | {TITLES[model]} | {means[0]} | {means[1]} | {a['variance']:.3g} | {b['variance']:.3g} "
                f"| {a['variance'] / b['variance']:.0f} |"
            )
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/bits"))
    parser.add_argument("--docs", type=Path, default=Path(__file__).parent.parent / "docs")
    parser.add_argument("--data", nargs="+", choices=DATA, default=[*DATA], help="which data sets")
    options = parser.parse_args()
    kept = options.folder / "figures.json"
    found = json.loads(kept.read_text()) if kept.is_file() else {}

    def keep(name, make):
        if name not in found:
            found[name] = make()
            write(kept, json.dumps(found, indent=1))
            jax.clear_caches()

    for data in options.data:
        for model in MODELS:
            workdir = options.folder / f"{data}-{model}"
            print(f"{data}, {model}", flush=True)
            if train(experiment(data, model), workdir).status != "finished":
                return  # the same command goes on
            keep(f"{data}/{model}", lambda workdir=workdir: evaluate(load(workdir), MEASURES[1]))
            if model == "vdm":
                gamma = load(workdir).model.process.schedule.gamma
                keep(f"{data}/vdm/ends", lambda g=gamma: {"gamma0": float(g(0.0)), "gamma1": float(g(1.0))})
            else:
                keep(f"{data}/{model}/variance", lambda workdir=workdir, low=LOW[model]: variances(workdir, low))
    write(options.docs / "bits-per-dim.md", page(found, options.data))
    print(page(found, options.data))


if __name__ == "__main__":
    main()
