"""What a trained model of sequences draws, beside real data; of a classifier, what it finds.

folder/metrics.json       every figure with its floor; the guided property by strength, where the config asks
folder/evaluation.npz     the samples that the report shows, and what it draws of real data"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxdiff.data.sequences import Tokens
from jaxdiff.domains import page, plots
from jaxdiff.domains.domain import Say
from jaxdiff.domains.molecules import Molecules
from jaxdiff.errors import InputError
from jaxdiff.metrics import molecules
from jaxdiff.numerics.files import npz, write
from jaxdiff.recipes.sequences import verdicts
from jaxdiff.recipes.sequences.model import Judging
from jaxdiff.runs.drawing import guided, samples
from jaxdiff.runs.folder import recall_domain
from jaxdiff.runs.model import Plan, Request, Run
from jaxdiff.runs.progress import counter


def measure(
    run: Run,
    *,
    guide: str | Path | None = None,
    steering: Mapping[str, Any] | None = None,
    seed: int = 1,
    say: Say = print,
) -> dict[str, Any]:
    """Samples measured as the config's `evaluate` says; `guide`, a classifier's folder, and `steering` stand in for the
    config's. A run that is a classifier itself is asked for the classes of held-out sequences.

    InputError where samples or held-out data are too few."""
    (train, held_out), settings = run.data(), run.config["evaluate"]
    if isinstance(run.model, Judging):
        return {"step": run.step, "data": train.name} | verdicts.verdicts(run.model, held_out, seed=seed, say=say)
    request = Request(guide=guided(run, guide), steering=steering)
    plan = run.model.plan(request)
    _check_strengths(run, plan)
    x, labels = _draw(plan, run, seed)
    domain = plan.domain
    say(f"measuring {len(x)} samples beside {len(held_out)} held-out sequences")
    found = domain.compare(x, labels, train, held_out, seed=seed, say=say)
    result: dict[str, Any] = {
        "step": run.step,
        "data": train.name,
        "kind": domain.kind,
        "sampler": run.config["sample"]["sampler"],
        "guidance": run.config["sample"]["guidance"],
        "guide": str(guide or run.config["sample"]["guide"]),
        "steering": steering or run.config["sample"]["steering"],
        "classes": list(domain.classes),
        "metrics": found,
    }
    if settings["guidance"]:
        result["by_guidance"] = by_guidance(run, request, train, settings["guidance"], seed=seed, say=say)
    arrays = {"tokens": x} | ({} if labels is None else {"labels": labels}) | domain.shown_real(held_out)
    write(run.folder / "evaluation.npz", npz(arrays))
    return result


def _check_strengths(run: Run, plan: Plan) -> None:
    """InputError where config.evaluate asks for a property by the strength of guidance, and there is none."""
    settings = run.config["evaluate"]
    if settings["guidance"] and not (plan.domain.classes and isinstance(plan.domain, Molecules)):
        raise InputError(
            "config.evaluate.guidance measures a property of molecules by the strength of guidance: it needs a data "
            "set with a label, such as qm9 with label='qed', or a guide; leave it empty"
        )
    if settings["guidance"] and settings["label"] < 0:
        raise InputError(
            "config.evaluate.guidance measures samples of one class, and config.evaluate.label is -1, all in turn: "
            "name one, such as --config.evaluate.label=1"
        )


def _draw(plan: Plan, run: Run, seed: int, named: str = "") -> tuple[np.ndarray, np.ndarray | None]:
    """Samples of the config's class (all in turn, unless it names one), and their labels."""
    n, label = run.config["evaluate"]["samples"], run.config["evaluate"]["label"]
    labels = None if label < 0 or not plan.domain.classes else np.full(n, label)
    return samples(plan, n, seed=seed, labels=labels, progress=counter(f"drawing from {run.place}{named}:"))


def by_guidance(
    run: Run, request: Request, train: Tokens, gammas: Any, *, seed: int, say: Say = print
) -> list[dict[str, Any]]:
    """Counts and properties of samples of the config's class, a row a strength; novel means are over new molecules."""
    known, rows = molecules.canonical_set(train.texts()), []
    for gamma in gammas:
        plan = run.model.plan(request._replace(guidance=gamma))
        x, _ = _draw(plan, run, seed + 1, f", gamma {gamma:g}")
        found = molecules.measure(plan.domain.tokens(x).texts(), known)
        rows.append(
            {
                "gamma": gamma,
                "samples": len(x),
                "valid": found.valid,
                "unique": found.unique,
                "novel": found.novel,
                "means": {name: list(value) for name, value in found.means.items()},
                "novel_means": {name: list(value) for name, value in found.novel_means.items()},
            }
        )
        means = ", ".join(f"{name} {value}" for name, value in found.means.items())
        say(f"gamma {gamma:g}: {found.valid} valid, {found.unique} unique, {found.novel} novel of {len(x)}; {means}")
    return rows


# The page ------------------------------------------------------------------------------------------------------------


def title(found: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[str, str]:
    """The title of a run's page, and the line below it."""
    if found["kind"] == "classifier":
        return verdicts.title(found, config)
    kind = config["model"]["name"]
    how = "token by token"
    if kind == "diffusion":
        how = f"by {found['sampler']['name']}, {found['sampler'].get('steps', 'its own')} steps"
    way = "" if found["steering"]["name"] == "auto" else f" ({', '.join(map(str, found['steering'].values()))})"
    asked = f" by {found['guide']}{way}" if found["guide"] else ""
    guidance = "" if found["guidance"] == 1 and not asked else f", guided{asked} with gamma {found['guidance']:g}"
    name = f"{config['process']['name']} noise" if kind == "diffusion" else kind
    lead = f"Step {found['step']}. Samples {how}{guidance}, with averaged parameters."
    return f"{found['data'].split('/')[0]}: {name}", lead


def parts(found: Mapping[str, Any], folder: Path, config: Mapping[str, Any]) -> Iterator[str]:
    """Samples, figures beside real data, and what guidance gains, as HTML; InputError where the samples are gone."""
    if found["kind"] == "classifier":
        yield from verdicts.parts(found, folder, config)
        return
    domain: Any = recall_domain(folder)
    if domain is None or not (folder / "evaluation.npz").exists():
        raise InputError(
            f"{folder} lacks the samples of its metrics, or what they are (an earlier version wrote less); run "
            "`jaxdiff evaluate` again"
        )
    with np.load(folder / "evaluation.npz") as stored:
        arrays = dict(stored)
    domain = replace(domain, classes=tuple(found["classes"]))
    yield "<h2>Samples</h2>"
    yield from domain.show(arrays["tokens"], arrays.get("labels"))
    yield "<h2>Beside real data</h2>"
    yield from domain.figures(found["metrics"], arrays)
    if found.get("by_guidance"):
        yield "<h2>By strength of guidance</h2>"
        yield from _by_guidance(found["by_guidance"], found["classes"][config["evaluate"]["label"]])


def _by_guidance(rows, wanted):
    names, counts = list(rows[0]["means"]), ("valid", "unique", "novel")
    kinds = [(kind, name) for kind in ("means", "novel_means") for name in names]
    yield page.table(
        ("gamma", *counts, *names, *(f"{name} of novel" for name in names)),
        (
            (f"{row['gamma']:g}", *(str(row[each]) for each in counts), *(page.pair(row[a][b]) for a, b in kinds))
            for row in rows
        ),
    )
    yield page.note(f"Of {rows[0]['samples']} samples asked to have {wanted}.")
    goal, n = wanted.split()[0], rows[0]["samples"]
    points = []
    for row in rows:
        if row["means"].get(goal) and row["means"][goal][1] is not None:
            share = row["valid"] / n
            points.append((row["gamma"], *row["means"][goal][:2], share, math.sqrt(share * (1 - share) / n)))
    if points:
        curves = plots.guidance_curves({"samples": points}, (goal, "valid"))
        yield page.plot(curves, "What guidance gains and what it costs, with standard errors.")


def bits_parts(found: Mapping[str, Any], folder: Path, config: Mapping[str, Any]) -> Iterator[str]:
    """Bits per token of held-out sequences, as HTML."""
    yield "<h2>How likely it finds held-out sequences</h2>"
    kind = "exactly" if found["exact"] else "at most (a bound)"
    rows = [
        (f"bits per token, {kind}", f"{found['bits']:.4f} ± {found['stderr']:.4f}"),
        ("perplexity", f"{found['perplexity']:.4f} ± {found['perplexity_stderr']:.4f}"),
    ]
    yield page.table(("", ""), rows)
    yield page.note(
        f"Of {found['sequences']} held-out sequences, {found['tokens']} tokens; the error is over sequences."
    )
