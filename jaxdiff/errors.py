"""One exception for every mistake of a caller: what, got, expected, cure, in one sentence.

The command line prints it and exits with 2; a library user sees an ordinary ValueError."""


class InputError(ValueError):
    """A mistake in what the caller gave: a config, a file, a shape, a range."""
