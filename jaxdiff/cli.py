"""The command line: train, sample, evaluate and report on the recipe that a config names.

A mistake in what was asked, and a run that cannot go on, are one sentence and exit code 2; an interrupted run has saved
its state and exits with 0."""

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from jaxdiff.errors import InputError

HELP = """jaxdiff: diffusion models in JAX

  jaxdiff train    --config=configs/digits.py --workdir=runs/digits    train, or go on where a run stopped
  jaxdiff sample   --workdir=runs/digits --n=64 --labels=3             draw images to runs/digits/samples.png
  jaxdiff evaluate --workdir=runs/digits                               measure beside real data, to metrics.json
  jaxdiff report   --workdir=runs/digits                               one page of all that, report.html

Change any field of a config on the command line: --config.train.steps=500 --config.process.sigma_max=20.
`jaxdiff COMMAND --help` lists a command's flags. configs/ holds an experiment a file."""


class Command(NamedTuple):
    """What a command does, its flags, and its body."""

    summary: str
    define: Callable[[flags.FlagValues], None]
    run: Callable[[flags.FlagValues], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("--help", "-h", "help"):
        print(HELP)
        return 0
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax tells its options at every start
    try:
        return _dispatch(words)
    except InputError as error:
        print(f"jaxdiff: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        from jaxdiff.training import RunStopped

        if not isinstance(error, RunStopped):
            raise
        print(f"jaxdiff: {error}", file=sys.stderr)
        return 2


def _dispatch(words):
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        raise InputError(f"there is no command {name!r}; it is one of {', '.join(COMMANDS)} (jaxdiff --help)")
    command, values = COMMANDS[name], flags.FlagValues()
    command.define(values)
    if "--help" in rest or "-h" in rest:
        print(f"jaxdiff {name}: {command.summary}\n")
        print(values.get_help())
        return 0
    try:
        left = values([f"jaxdiff {name}", *rest])
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{' '.join(str(error).split())}; see jaxdiff {name} --help") from error
    if len(left) > 1:
        raise InputError(f"{left[1]!r} is not a flag; flags look like --workdir=runs/digits (jaxdiff {name} --help)")
    return command.run(values)


# The commands ----------------------------------------------------------------------------------------------------------


def _workdir(values):
    flags.DEFINE_string("workdir", None, "The folder of the run.", flag_values=values)


def _given(values, name, example):
    if getattr(values, name) is None:
        raise InputError(f"--{name} is missing; give one such as --{name}={example}")
    return getattr(values, name)


def _train_flags(values):
    from ml_collections import config_flags

    config_flags.DEFINE_config_file(
        "config", None, "The experiment, a Python file with get_config().", flag_values=values
    )
    _workdir(values)


def _train(values):
    config, workdir = _given(values, "config", "configs/digits.py"), _given(values, "workdir", "runs/digits")
    status = _recipe(config).train(config, workdir)
    print(f"{status}: {workdir}" + ("; the same command goes on from here" if status == "interrupted" else ""))
    return 0


def _sample_flags(values):
    _workdir(values)
    flags.DEFINE_integer("n", 64, "How many images.", flag_values=values)
    flags.DEFINE_list("labels", None, "Classes to draw in turn, such as 3 or 0,1,2; all by default.", flag_values=values)
    flags.DEFINE_string("sampler", None, "edm, euler, ddim, dpmpp_2m, ancestral or reverse_sde.", flag_values=values)
    flags.DEFINE_integer("steps", None, "Steps of the sampler.", flag_values=values)
    flags.DEFINE_float("guidance", None, "Classifier-free guidance weight; 1 is none.", flag_values=values)
    flags.DEFINE_integer("seed", 0, "Seed of the noise.", flag_values=values)
    flags.DEFINE_string("out", None, "A .png, or .npz for the arrays; WORKDIR/samples.png by default.", flag_values=values)


def _sample(values):
    workdir = Path(_given(values, "workdir", "runs/digits"))
    options = {name: getattr(values, name) for name in ("n", "labels", "sampler", "steps", "guidance", "seed")}
    out = Path(values.out) if values.out else workdir / "samples.png"
    print(f"wrote {_recipe_of(workdir).sample(workdir, out, **options)}")
    return 0


def _evaluate_flags(values):
    _workdir(values)
    flags.DEFINE_integer("seed", 1, "Seed of the samples that are measured.", flag_values=values)


def _evaluate(values):
    workdir = _given(values, "workdir", "runs/digits")
    _recipe_of(workdir).evaluate(workdir, seed=values.seed)
    return 0


def _report(values):
    workdir = _given(values, "workdir", "runs/digits")
    print(f"wrote {_recipe_of(workdir).report(workdir)}")
    return 0


def _recipe(config) -> Any:
    from jaxdiff import recipes

    name = config.get("recipe")
    if name not in recipes.__all__:
        raise InputError(f"config.recipe is {name!r}, expected one of {', '.join(recipes.__all__)}")
    return getattr(recipes, name)


def _recipe_of(workdir) -> Any:
    from jaxdiff.recipes.images.run import recall

    return _recipe(recall(Path(workdir)))


COMMANDS = {
    "train": Command("train a config's model in a folder, or go on where that run stopped", _train_flags, _train),
    "sample": Command("draw images from a trained model", _sample_flags, _sample),
    "evaluate": Command("measure a trained model beside real data", _evaluate_flags, _evaluate),
    "report": Command("write one page of samples, figures and curves", _workdir, _report),
}

if __name__ == "__main__":
    sys.exit(main())
