"""The words of a flow solve, sorted into the two values that its door takes."""

from jaxdiff.likelihood import Solve, Trace


def words(**options):
    """solve=, trace= and the rest, of options by their own names."""
    kinds = {"solve": Solve, "trace": Trace}
    found = {
        name: kind(**{word: options.pop(word) for word in kind._fields if word in options})
        for name, kind in kinds.items()
    }
    return found | options
