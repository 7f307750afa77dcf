"""The command line: train, sample, evaluate and report on the recipe that a config names.

A mistake in what was asked, and a run that cannot go on, are one sentence and exit code 2; an interrupted training run
has saved its state and exits with 0. Anything else is a bug of ours, and keeps its traceback. Each command imports what
it needs, so that help and mistakes answer at once."""

import argparse
import errno
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from jaxdiff.errors import InputError

HELP = """jaxdiff: diffusion models in JAX

  jaxdiff train    --config=configs/digits.py --workdir=runs/digits    train, or go on where a run stopped
  jaxdiff sample   --workdir=runs/digits --n=64 --labels=3             draw images, to runs/digits/samples.png
  jaxdiff evaluate --workdir=runs/digits                               measure beside real data, to metrics.json
  jaxdiff report   --workdir=runs/digits                               one page of all that, report.html

Change any field of a config on the command line: --config.train.steps=500 --config.process.sigma_max=20.
`jaxdiff COMMAND --help` says more of a command. configs/ holds one experiment a file."""

NEEDED = {"config": "configs/digits.py", "workdir": "runs/digits"}
"""The flags that a command which has them cannot do without, with examples."""

FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


class Command(NamedTuple):
    """What a command does, what its help adds, its flags, and its body."""

    summary: str
    more: str
    define: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command of `argv` (by default the process's own words); returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("--help", "-h", "help"):
        print(HELP)
        return 0
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax tells its options at every start
    try:
        _dispatch(words)
    except InputError as error:
        return _say(error)
    except RuntimeError as error:
        from jaxdiff.training import RunStopped

        if not isinstance(error, RunStopped):
            raise
        return _say(error)
    except OSError as error:
        if error.errno not in FULL + FORBIDDEN:
            raise
        cure = "free some space" if error.errno in FULL else "give a folder that you may write in"
        return _say(f"{error}; what was saved before is untouched: {cure} and run the same command again")
    except ModuleNotFoundError as error:
        if (error.name or "jaxdiff").startswith("jaxdiff"):
            raise
        return _say(f"the package {error.name} is not installed; run: pip install 'jaxdiff[all]'")
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    return 0


def _say(error):
    print(f"jaxdiff: {' '.join(str(error).split())}", file=sys.stderr)
    return 2


class _Parser(argparse.ArgumentParser):
    """Flags whose mistakes are InputErrors."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def _dispatch(words):
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        raise InputError(f"there is no command {name!r}; it is one of {', '.join(COMMANDS)} (see jaxdiff --help)")
    command = COMMANDS[name]
    parser = _Parser(
        prog=f"jaxdiff {name}",
        description=f"{command.summary}.",
        epilog=command.more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.define(parser)
    parser.usage = " ".join(["%(prog)s", *(f"--{word}={NEEDED[word]}" for word in _needed(parser)), "[flags]"])
    if "--help" in rest or "-h" in rest:
        parser.print_help()
        return
    options, options.left = parser.parse_known_args(rest)
    if strange := _strange(options.left, has_config="config" in options):
        parser.error(f"{strange!r} is not a flag of jaxdiff {name}; it has {', '.join(_flags(parser))}")
    for word in _needed(parser):
        if getattr(options, word) is None:
            parser.error(f"--{word} is missing; give one such as --{word}={NEEDED[word]}")
    command.run(options)


def _needed(parser):
    return [word for word in NEEDED if f"--{word}" in _flags(parser)]


def _strange(left, has_config):
    """The first word that is neither --config.field=value nor the value after a --config.field."""
    before = ""
    for word in left:
        overrides = has_config and word.startswith(("--config.", "--noconfig."))
        value = has_config and before.startswith("--config.") and "=" not in before and not word.startswith("--")
        if not overrides and not value:
            return word
        before = "" if value else word
    return None


def _flags(parser):
    return [action.option_strings[-1] for action in parser._actions]


# The commands --------------------------------------------------------------------------------------------------------


def _workdir(parser):
    parser.add_argument("--workdir", type=Path, metavar="FOLDER", help="the folder of the run")


def _train_flags(parser):
    parser.add_argument("--config", metavar="FILE", help="the experiment, a Python file with get_config()")
    parser.add_argument("--config.FIELD", metavar="VALUE", help="change one field of it (any number of these)")
    _workdir(parser)


def _train(options):
    from jaxdiff.recipes.config_file import read

    config = read(options.config, options.left)
    run = _recipe(config).train(config, options.workdir)
    after = {
        "finished": f"now: jaxdiff evaluate --workdir={options.workdir}",
        "interrupted": "the same command goes on from here",
    }
    print(f"{run.status} at step {int(run.state.step)} in {options.workdir}; {after[run.status]}")


def _sample_flags(parser):
    _workdir(parser)
    parser.add_argument("--n", type=int, default=64, help="how many images (64)")
    parser.add_argument("--labels", type=_labels, help="classes to draw in turn, such as 3 or 0,1,2 (all of them)")
    parser.add_argument("--sampler", help="edm, euler, ddim, dpmpp_2m, ancestral or reverse_sde (the config's)")
    parser.add_argument(
        "--steps", type=int, help="steps of the sampler; edm calls the model twice in each but the last"
    )
    parser.add_argument("--guidance", type=float, help="weight of classifier-free guidance; 1 is none (the config's)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise (0)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="a .png, or an .npz of arrays (FOLDER/samples.png)")


def _sample(options):
    names = ("n", "labels", "sampler", "steps", "guidance", "seed")
    chosen = {name: getattr(options, name) for name in names}
    out = options.out or options.workdir / "samples.png"
    print(f"wrote {_recipe_of(options.workdir).sample(options.workdir, out, **chosen)}")


def _evaluate_flags(parser):
    _workdir(parser)
    parser.add_argument("--seed", type=int, default=1, help="seed of the samples that are measured (1)")


def _evaluate(options):
    _recipe_of(options.workdir).evaluate(options.workdir, seed=options.seed)
    print(f"wrote {options.workdir / 'metrics.json'}; now: jaxdiff report --workdir={options.workdir}")


def _report(options):
    print(f"wrote {_recipe_of(options.workdir).report(options.workdir)}")


def _labels(text):
    try:
        return [int(word) for word in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected class numbers such as 3 or 0,1,2, got {text!r}") from error


def _recipe(config) -> Any:
    from jaxdiff import recipes

    name = config.get("recipe")
    if name not in recipes.__all__:
        raise InputError(f"config.recipe is {name!r}, expected one of {', '.join(recipes.__all__)}")
    return getattr(recipes, name)


def _recipe_of(workdir):
    from jaxdiff.recipes.workdir import recall

    return _recipe(recall(workdir))


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
        "Draw images from a trained model",
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
        """example:
  jaxdiff evaluate --workdir=runs/digits

Draws as the config's `sample` says, measures as its `evaluate` says, and writes FOLDER/metrics.json and the pictures of
the report, FOLDER/evaluation.npz.""",
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
}

if __name__ == "__main__":
    sys.exit(main())
