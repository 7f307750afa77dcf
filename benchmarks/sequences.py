"""Molecules, DNA and text by three models of one network: python benchmarks/sequences.py

Trains configs/qm9.py (told QED, and told rings), configs/text.py and configs/dna.py with masking, with uniform noise
and token by token, each at the same size and budget, and measures them:

- text: bits per character of held-out text, exact or a bound
- QM9: validity, uniqueness and novelty of what is drawn without a class
- QM9: what D-CFG gains (the mean of the property) and costs (validity) by its strength and by the number of steps
- QM9: the same of classifiers that steer the model without its class (D-CBG and NOS, FUDGE and PPLM), each trained here
- DNA: words, a discriminator, and whether a judge that never saw the samples finds the cell type asked for

Writes docs/sequences.md. Trained networks, samples and figures stay in --folder and are not made again; the same
command after an interruption goes on. Needs the packages that the configs name.

Claim: molecules, DNA, text: three models at one budget ([docs/sequences.md](docs/sequences.md))"""

import argparse
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdiff import metrics
from jaxdiff.numerics.files import npz, write
from jaxdiff.recipes import sequences
from jaxdiff.runs.config_file import read
from jaxdiff.runs.drawing import samples
from jaxdiff.runs.measure import evaluate
from jaxdiff.runs.model import Request

CONFIGS = Path(__file__).parent.parent / "configs"
VARIANTS = {
    "autoregressive": ["--config.model={'name': 'autoregressive'}"],
    "absorbing": ["--config.process={'name': 'absorbing'}", "--config.level=none"],
    "uniform": ["--config.process={'name': 'uniform'}", "--config.level=total_noise"],
}
LARGER = {
    "network.width": 256,
    "network.depth": 6,
    "network.heads": 8,
    "train.batch_size": 512,
    "train.steps": 8000,
    "train.warmup": 100_000,
    "train.ema_half_life": 200_000,
    "train.save_every": 1000,
}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "text": ("text.py", {}),
    "qm9": ("qm9.py", {}),
    "rings": ("qm9.py", {"data.label": "rings"}),
    "dna": ("dna.py", {}),
    "qm9-larger": ("qm9.py", LARGER),
}
"""Name -> (config, what is changed in it)."""
DEFAULT = ["text", "qm9", "rings", "dna"]
JUDGE = {"network.width": 64, "network.depth": 2, "train.steps": 1000, "train.ema_half_life": 10_000}
JUDGES = {
    "D-CBG, first order": ("noisy", ("absorbing", "uniform")),
    "NOS": ("hidden", ("absorbing", "uniform")),
    "FUDGE": ("prefixes", ("autoregressive",)),
    "PPLM": ("hidden", ("autoregressive",)),
}
"""Way of steering -> (what its judge reads, of which models)."""
STEPS, GAMMAS, SAMPLES = (8, 16, 32), (1.0, 2.0, 3.0), 1024
JUDGED_STEPS, JUDGED_GAMMAS = 32, (0.0, 1.0, 4.0)
PROPERTY = {"qm9": "qed", "rings": "rings", "qm9-larger": "qed"}


class Bench:
    """What has been made, in a folder: runs, samples, figures."""

    def __init__(self, folder: Path):
        self.folder, self.kept = folder, folder / "figures.json"
        self.found = json.loads(self.kept.read_text()) if self.kept.is_file() else {}

    def figure(self, name, make):
        """A figure, made once."""
        if name not in self.found:
            self.found[name] = make()
            write(self.kept, json.dumps(self.found, indent=1))
            jax.clear_caches()
        return self.found[name]

    def run(self, name, variant):
        """The folder of a finished training; None where it was interrupted."""
        file, changes = RUNS[name]
        return self.trained(f"{name}-{variant}", file, VARIANTS[variant], changes)

    def judge(self, variant, reads):
        """The folder of a finished classifier of QM9 for a kind of model, which reads that."""
        of = str(self.folder / f"qm9-{variant}") if reads == "hidden" else ""
        model = f"--config.model={ {'name': 'classifier', 'reads': reads, 'of': of} }"
        noise = [] if variant == "autoregressive" else VARIANTS[variant]
        return self.trained(f"qm9-judge-{variant}-{reads}", "qm9.py", [*noise, model], JUDGE)

    def trained(self, name, file, words, changes):
        workdir = self.folder / name
        if not (workdir / "finished").exists():
            print(name, flush=True)
            config = read(CONFIGS / file, words + [f"--config.{field}={value}" for field, value in changes.items()])
            if sequences.train(config, workdir).status != "finished":
                return None
            write(workdir / "finished", "")
        return workdir

    def drawn(self, workdir, loaded, gamma, steps, label, judge=None):
        """1,024 samples of a class, kept as tokens, by D-CFG or by the classifier in the folder `judge`."""
        by = "" if judge is None else f"-{judge.name}"
        path = workdir / "samples" / f"gamma{gamma:g}-steps{steps}{by}.npz"
        if not path.is_file():
            labels = np.full(SAMPLES, label) if loaded.domain.classes else None
            diffuses = loaded.config["model"]["name"] == "diffusion"
            spec = {"name": "ancestral", "steps": steps} if diffuses else None
            plan = loaded.model.plan(Request(spec, None, gamma, judge and sequences.load(judge)))
            tokens, _ = samples(plan, SAMPLES, seed=2, labels=labels, progress=progress)
            path.parent.mkdir(exist_ok=True)
            write(path, npz({"tokens": tokens}))
        with np.load(path) as arrays:
            return loaded.domain.tokens(arrays["tokens"])


def progress(done, n):
    """Nothing: the figures say enough."""


def steps_of(variant):
    """Step counts that make a difference: an autoregressive model has as many as tokens."""
    return (0,) if variant == "autoregressive" else STEPS


def counted(drawn, known):
    """How many are valid, unique and new, and the means of their properties."""
    found = metrics.molecules.measure(drawn.texts(), known)
    means = {key: list(value) for key, value in found.means.items()}
    counts = {"valid": found.valid, "unique": found.unique, "novel": found.novel}
    return counts | {"stderr": found.validity.stderr, "means": means}


def judged(bench, known):
    """Figures of QM9 models that are steered by classifiers; False where one was interrupted."""
    for name, (reads, variants) in JUDGES.items():
        for variant in variants:
            workdir, judge = bench.run("qm9", variant), None
            judge = workdir and bench.judge(variant, reads)
            if judge is None:
                return False
            steps = 0 if variant == "autoregressive" else JUDGED_STEPS
            for gamma in JUDGED_GAMMAS:

                def measured(workdir=workdir, judge=judge, gamma=gamma, steps=steps):
                    return counted(bench.drawn(workdir, sequences.load(workdir), gamma, steps, 1, judge), known())

                print(name, variant, gamma, bench.figure(f"judged/{name}/{variant}/{gamma}", measured), flush=True)
            accuracy = bench.figure(
                f"judged/{name}/{variant}", lambda judge=judge: figures_of(judge, "samples")["metrics"]
            )
            print(name, variant, accuracy, flush=True)
    return True


def molecules(bench, name, known):
    """Figures of a QM9 model: without a class, and by the strength of guidance."""
    for variant in VARIANTS:
        workdir = bench.run(name, variant)
        if workdir is None:
            return False
        loaded: Any = None
        for steps in steps_of(variant):
            for gamma in (0.0, *GAMMAS):
                if f"{name}/{variant}/{steps}/{gamma}" in bench.found:
                    continue
                loaded = loaded or sequences.load(workdir)

                def measured(loaded=loaded, workdir=workdir, gamma=gamma, steps=steps):
                    return counted(bench.drawn(workdir, loaded, gamma, steps, 1), known())

                print(
                    name, variant, steps, gamma, bench.figure(f"{name}/{variant}/{steps}/{gamma}", measured), flush=True
                )
    return True


def page(found, chosen):
    """docs/sequences.md."""
    only = "" if chosen == DEFAULT else f" --only {' '.join(chosen)}"
    lines = [
        "# Molecules, DNA and text",
        "",
        f"Written by `python benchmarks/sequences.py{only}`: one small transformer, the same budget for each kind of",
        "model, one seed. `configs/` has the sizes, and the published ones beside them. [tokens.md](tokens.md) says",
        "what the models are, [guidance.md](guidance.md) what guidance is.",
        "",
    ]
    if "text" in chosen:
        lines += [
            "## Text: 27 letters of Wikipedia",
            "",
            "Bits per character of held-out text, with the standard error over its windows of 128 letters.",
            "",
            "| model | bits per character | |",
            "|---|---|---|",
        ]
        for variant in VARIANTS:
            row = found[f"text/{variant}"]
            kind = "exact" if row["exact"] else "a bound"
            lines.append(f"| {variant} | {row['bits']:.3f} +- {row['stderr']:.3f} | {kind} |")
        lines.append("")
    for name in (name for name in ("qm9", "qm9-larger", "rings") if name in chosen):
        goal = PROPERTY[name]
        title = {"qm9": "QM9, told QED", "qm9-larger": "QM9, told QED, larger", "rings": "QM9, told rings"}[name]
        lines += [
            f"## {title}",
            "",
            f"{SAMPLES:,} samples each. Without a class (gamma = 0), and asked for {goal} above its .9 quantile in the",
            "data with D-CFG of strength gamma: the share of valid molecules, how many are unique, how many of these",
            "are new, and the mean of the property over the valid ones.",
            "",
            f"| model | steps | gamma | valid | unique | novel | {goal} |",
            "|---|---|---|---|---|---|---|",
        ]
        for variant in VARIANTS:
            for steps in steps_of(variant):
                for gamma in (0.0, *GAMMAS):
                    row = found[f"{name}/{variant}/{steps}/{gamma}"]
                    mean, share = row["means"][goal], row["valid"] / SAMPLES
                    lines.append(
                        f"| {variant} | {steps or 'each token'} | {gamma:g} | {share:.3f} | {row['unique']} "
                        f"| {row['novel']} | {mean[0]:.3f} +- {mean[1]:.3f} |"
                    )
        lines.append("")
    if "qm9-judges" in chosen:
        lines += [
            "## QM9, steered by classifiers",
            "",
            "The model without its class, asked for qed above its .9 quantile by a classifier trained on the same data",
            f"(width {JUDGE['network.width']}, {JUDGE['train.steps']:,} steps), in {JUDGED_STEPS} steps. gamma = 0 asks"
            " none; at 1 D-CBG and FUDGE are Bayes'",
            "rule; NOS and PPLM move hidden states by steps of gamma .1. A classifier's own figures: how often it is",
            "right of held-out molecules that are whole, where the commonest class is right in",
            f"{found['judged/FUDGE/autoregressive']['chance']:.3f}.",
            "",
            "| steered by | model | classifier | gamma | valid | unique | novel | qed |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for name, (_, variants) in JUDGES.items():
            for variant in variants:
                own = found[f"judged/{name}/{variant}"]["rows"]
                right = own[-1 if variant == "autoregressive" else 0]["accuracy"]
                for gamma in JUDGED_GAMMAS:
                    row = found[f"judged/{name}/{variant}/{gamma}"]
                    mean = row["means"]["qed"]
                    lines.append(
                        f"| {name} | {variant} | {right[0]:.3f} | {gamma:g} | {row['valid'] / SAMPLES:.3f} "
                        f"| {row['unique']} | {row['novel']} | {mean[0]:.3f} +- {mean[1]:.3f} |"
                    )
        lines.append("")
    if "dna" in chosen:
        lines += ["## Regulatory DNA, told the cell type", ""]
        for variant in ("absorbing", "uniform"):
            row = found[f"dna/{variant}"]
            told, classes = row["discriminator"], row["classes"]
            lines += [f"{variant} noise, gamma = 2:", ""]
            for k in ("3-mers", "6-mers"):
                lines.append(
                    f"- {k}, Jensen-Shannon distance to held-out data: {row[k]['distance']:.4f} (as many held-out "
                    f"sequences: {row[k]['floor']:.4f} +- {row[k]['floor_std']:.4f})"
                )
            ours, real = classes["samples"], classes["held_out"]
            lines += [
                f"- told from data by its words (AUROC): {told['auroc'][0]:.3f} +- {told['auroc'][1]:.3f} (held-out "
                f"data: {told['floor'][0]:.3f} +- {told['floor'][1]:.3f})",
                f"- the cell type asked for, found by a judge of words: {ours['accuracy'][0]:.3f} (held-out data "
                f"{real['accuracy'][0]:.3f}, chance {ours['chance']:.3f}, p = {ours['p_value']:.1g})",
                "",
            ]
    return "\n".join(lines)


def figures_of(workdir, name):
    """The figures of one measure of the run in `workdir`."""
    return evaluate(sequences.load(workdir), next(m for m in sequences.MEASURES if m.name == name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/sequences"))
    parser.add_argument("--docs", type=Path, default=CONFIGS.parent / "docs")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[*RUNS, "qm9-judges"],
        default=DEFAULT,
        help="which parts; qm9-larger wants an accelerator",
    )
    options = parser.parse_args()
    bench, known = Bench(options.folder), []

    def training_set(workdir):
        if not known:
            known.append(metrics.molecules.canonical_set(sequences.load(workdir).data()[0].texts()))
        return known[0]

    for name in options.only:
        if name == "qm9-judges":
            if not judged(bench, lambda: training_set(options.folder / "qm9-autoregressive")):
                return
            continue
        if name in PROPERTY:
            if not molecules(bench, name, lambda: training_set(options.folder / "qm9-autoregressive")):
                return
            continue
        for variant in VARIANTS if name == "text" else ("absorbing", "uniform"):
            workdir = bench.run(name, variant)
            if workdir is None:
                return  # the same command goes on
            if name == "text":
                bench.figure(f"text/{variant}", lambda workdir=workdir: figures_of(workdir, "likelihood"))
            else:
                bench.figure(f"dna/{variant}", lambda workdir=workdir: figures_of(workdir, "samples")["metrics"])
    text = page(bench.found, options.only)
    write(options.docs / "sequences.md", text)
    print(text)


if __name__ == "__main__":
    main()
