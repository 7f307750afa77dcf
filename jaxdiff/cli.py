"""The command line: train, sample, evaluate and report on the recipe that a config names.

A mistake in what was asked, and a run that cannot go on, are one sentence and exit code 2; an interrupted training run
has saved its state and exits with 0. Anything else is a bug of ours, and keeps its traceback. Each command imports what
it needs, so that help and mistakes answer at once."""

import argparse
import errno
import logging
import sys
from collections.abc import Sequence
from typing import NoReturn

from jaxdiff.errors import InputError
from jaxdiff.recipes.commands import COMMANDS, NEEDED, own_verbs

HELP = """jaxdiff: diffusion models in JAX

  jaxdiff train    --config=configs/digits.py --workdir=runs/digits    train, or go on where a run stopped
  jaxdiff sample   --workdir=runs/digits --n=64 --labels=3             draw images, to runs/digits/samples.png
  jaxdiff evaluate --workdir=runs/digits                               measure beside real data, to metrics.json
  jaxdiff report   --workdir=runs/digits                               one page of all that, report.html
  jaxdiff statistics --data=digits --out=digits.npz                    a data set's mean and covariance, for evaluate
  jaxdiff convert  edm network.pkl runs/edm                            another project's network, to be sampled

Change any field of a config on the command line: --config.train.steps=500 --config.process.sigma_max=20.
`jaxdiff COMMAND --help` says more of a command. configs/ holds one experiment a file."""

FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


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
    name, rest, known = words[0], words[1:], COMMANDS
    if own := own_verbs(name):  # jaxdiff RECIPE VERB: what that recipe alone can do
        known = {f"{name} {verb}": command for verb, command in own.items()}
        name, rest = " ".join(words[:2]), words[2:]
    if name not in known:
        raise InputError(f"there is no command {name!r}; it is one of {', '.join(known)} (see jaxdiff --help)")
    command = known[name]
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


if __name__ == "__main__":
    sys.exit(main())
