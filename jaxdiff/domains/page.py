"""One self-contained HTML page: what a run's report is made of."""

import base64
import html
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 60rem; margin: 2.5rem auto; padding: 0 1.25rem }
h1 { font-size: 1.7rem; margin-bottom: .25rem } h2 { font-size: 1.2rem; margin: 2.2rem 0 .4rem }
p.lead, figcaption, .note { color: #667 } figure { margin: .5rem 0 } figcaption { font-size: .9rem }
img { max-width: 100%; background: #fff; border-radius: 4px } img.pixels { image-rendering: pixelated }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .95rem }
th, td { text-align: right; padding: .25rem .8rem; border-bottom: 1px solid #8884 }
th:first-child, td:first-child { text-align: left }
pre { overflow: auto; background: #8881; padding: .8rem; font-size: .8rem }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """The parts as one page."""
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{html.escape(title)}</title><style>{STYLE}</style>{''.join(parts)}</html>\n"
    )


def head(title: str, lead: str) -> str:
    """The page's own title, and one line below it."""
    return f"<h1>{html.escape(title)}</h1><p class=lead>{html.escape(lead)}</p>"


def note(text: str) -> str:
    """A paragraph in grey."""
    return f"<p class=note>{html.escape(text)}</p>"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows of text under their heads."""

    def line(cells, tag):
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}" for cell in cells) + "</tr>"

    return f"<table>{line(heads, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def shown(value: float | None) -> str:
    """A number in four digits."""
    return "–" if value is None else f"{value:.4g}"


def pair(estimate: Sequence[float | None]) -> str:
    """(a value, its standard error), to two digits of the error."""
    value, stderr = estimate[:2]
    if value is None or not stderr:
        return f"{shown(value)} ± {shown(stderr)}"
    digits = 1 - math.floor(math.log10(stderr))
    if not 0 <= digits <= 6:
        return f"{value:.4g} ± {stderr:.2g}"
    return f"{value:.{digits}f} ± {stderr:.{digits}f}"


def lines(texts: Iterable[str]) -> str:
    """Lines of text as they stand."""
    return f"<pre>{html.escape(chr(10).join(texts))}</pre>"


def figure(content: bytes, caption: str, kind: str = "plot") -> str:
    """A PNG with its caption; `kind` is plot, or pixels, which stay sharp."""
    data, text = base64.b64encode(content).decode(), html.escape(caption)
    image = f"<img class={kind} src='data:image/png;base64,{data}' alt='{text}'>"
    return f"<figure>{image}<figcaption>{text}</figcaption></figure>"


def plot(drawn: Any, caption: str) -> str:
    """A matplotlib figure with its caption."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=150, bbox_inches="tight")
    return figure(buffer.getvalue(), caption)


def axes(width: float = 7.0, height: float = 3.6) -> tuple[Any, Any]:
    """(figure, axes) of matplotlib in the page's style."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(width, height), layout="constrained")
    made = drawn.add_subplot()
    made.spines[["top", "right"]].set_visible(False)
    return drawn, made


def config(values: Mapping[str, Any]) -> str:
    """A run's config, folded open."""
    return f"<h2>Config</h2><pre>{html.escape(json.dumps(values, indent=2))}</pre>"


def training(workdir: Path, per: str) -> str:
    """The loss by step, where the run kept a log."""
    path = workdir / "log.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    log = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    if not log:
        return ""
    drawn, made = axes(height=2.6)
    made.plot(*zip(*log, strict=True), lw=1)
    losses = [loss for _, loss in log]
    made.set(yscale="log" if max(losses) > 10 * min(losses) > 0 else "linear", xlabel="step", ylabel="loss")
    return "<h2>Training</h2>" + plot(drawn, f"Mean loss between log lines, per {per}.")
