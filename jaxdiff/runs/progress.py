"""How far something is: one line that is rewritten on a terminal, plain lines at each quarter elsewhere."""

import sys
from collections.abc import Callable
from typing import Any

Progress = Callable[[int, int], None]
"""(done, of all) -> None."""


def counter(what: str, stream: Any = None) -> Progress:
    """A Progress that writes `what 128/1000` to `stream`, by default standard error."""
    out, last = sys.stderr if stream is None else stream, [-1]

    def live(done, total):
        print(f"\r{what} {done}/{total}", end="\n" if done == total else "", file=out, flush=True)

    def plain(done, total):
        quarter = 4 * done // total
        if quarter > last[0]:
            last[0] = quarter
            print(f"{what} {done}/{total}", file=out, flush=True)

    return live if out.isatty() else plain
