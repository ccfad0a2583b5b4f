"""The page that reports are written as: one look in the light, in the dark and on paper, and nothing to be fetched."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from ai4sdk._version import __version__

__all__ = ["details", "document", "escaped", "facts_list", "figure_text", "section", "table", "written_at"]

UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Characters that HTML and XML know no way to write."""

STYLE = """
:root { color-scheme: light dark; --ink:#1c2430; --quiet:#5d6878; --line:#dfe4ea; --page:#f6f7f9; --card:#fff;
  --accent:#0072b2; --bar:#cfe3f1; --good:#00714f; --bad:#b03a06; --note:#fff6e0; --note-line:#e0b040; }
@media (prefers-color-scheme: dark) { :root { --ink:#e4e8ee; --quiet:#9aa5b4; --line:#323a46; --page:#14181e;
  --card:#1c222b; --accent:#66b5e8; --bar:#1f4660; --good:#4fc79a; --bad:#f08c5a; --note:#2d2716; --note-line:#8a6d1f; }
  figure img { filter: invert(1) hue-rotate(180deg); mix-blend-mode: screen; } }
* { box-sizing: border-box }
body { margin:0 auto; max-width:1080px; padding:2.5rem 1.25rem 3rem; background:var(--page); color:var(--ink);
  font:16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", Helvetica, Arial, sans-serif; }
h1 { font-size:2rem; line-height:1.2; margin:.1rem 0 .5rem; overflow-wrap:anywhere }
h2 { font-size:1.15rem; margin:0 0 .9rem } h3 { font-size:1rem; margin:1rem 0 .4rem }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size:.86em;
  overflow-wrap:anywhere }
pre { margin:0; padding:.55rem .75rem; background:var(--page); border:1px solid var(--line); border-radius:6px;
  white-space:pre-wrap }
.eyebrow { margin:0; color:var(--quiet); font-size:.8rem; letter-spacing:.08em; text-transform:uppercase }
.lead { margin:.2rem 0 .6rem; font-size:1.05rem; max-width:48rem } .quiet { color:var(--quiet) }
.facts { display:flex; flex-wrap:wrap; gap:.3rem 1.2rem; margin:.2rem 0 1.6rem; color:var(--quiet) }
.state { display:inline-block; vertical-align:middle; margin-left:.4rem; padding:.1rem .65rem; border-radius:99px;
  border:1px solid currentColor; font-size:.85rem; font-weight:600; color:var(--quiet) }
.state.succeeded { color:var(--good) } .state.failed, .state.interrupted, .state.cancelled { color:var(--bad) }
section { background:var(--card); border:1px solid var(--line); border-radius:10px; padding:1.25rem 1.4rem;
  margin:0 0 1.1rem }
section.notes { background:var(--note); border-color:var(--note-line) } .notes ul { margin:0; padding-left:1.2rem }
.tiles { display:grid; grid-template-columns:repeat(auto-fit, minmax(150px, 1fr)); gap:.8rem; margin-bottom:.8rem }
.tile { border:1px solid var(--line); border-radius:8px; padding:.7rem .9rem; display:flex; flex-direction:column }
.tile b { font-size:1.65rem; line-height:1.2; font-variant-numeric:tabular-nums; color:var(--accent) }
.tile small { color:var(--quiet) }
.figures { display:grid; grid-template-columns:repeat(2, minmax(0, 1fr)); gap:1.2rem; align-items:start }
figure { margin:0; min-width:0 } figure.wide { grid-column:1 / -1 }
figure img { display:block; width:100%; height:auto; max-height:640px; object-fit:contain; object-position:left top }
figcaption { color:var(--quiet); font-size:.88rem; margin-top:.3rem }
.scroll { overflow-x:auto } table { border-collapse:collapse; width:100%; font-size:.92rem }
th { text-align:left; color:var(--quiet); font-weight:600 }
.n { text-align:right; white-space:nowrap; font-variant-numeric:tabular-nums }
th, td { padding:.32rem .6rem; border-bottom:1px solid var(--line); vertical-align:top; overflow-wrap:break-word }
td { max-width:30rem }
tbody tr:last-child td { border-bottom:0 }
.bar { display:inline-block; min-width:5.5rem; padding:0 .35rem; border-radius:3px;
  background:linear-gradient(to right, var(--bar) calc(var(--share) * 100%), transparent 0) }
dl { margin:0 }
.facts-list { display:grid; grid-template-columns:minmax(7rem, max-content) minmax(0, 1fr); gap:.25rem 1.2rem }
dt { color:var(--quiet) } dd { margin:0; overflow-wrap:anywhere }
.steps dt { margin-top:.6rem } .steps dt:first-child { margin-top:0 }
details { margin-top:.9rem } summary { cursor:pointer; color:var(--accent) } details > .scroll { margin-top:.6rem }
footer { color:var(--quiet); font-size:.85rem; margin-top:1.4rem }
@media (max-width:720px) { .figures { grid-template-columns:minmax(0, 1fr) } }
@media print { body { background:#fff; max-width:none; padding:0 } section { break-inside:avoid; border-color:#ccc } }
"""


def document(title: str, header: str, main: str, *, style: str = "", script: str = "") -> str:
    """Return a whole page of ready HTML.

    Parameters
    ----------
    title
        Plain text.
    header, main
        Ready HTML: what is above the sections, and the sections.
    style
        Further CSS of this kind of page.
    script
        JavaScript of ours. The page's policy names its hash, so that nothing else can run, whatever the page contains.
    """
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy += f"; script-src 'sha256-{digest}'"
    alone = "it loads nothing" if script else "it loads nothing and runs nothing"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="ai4sdk {escaped(__version__)}">
<title>{escaped(title)}</title>
<style>{STYLE}{style}</style>
</head>
<body>
<header>
{header}
</header>
<main>
{main}
</main>
<footer>Written by ai4sdk {escaped(__version__)}. This page stands alone: {alone}.</footer>
{f"<script>{script}</script>" if script else ""}
</body>
</html>
"""


def section(title: str, body: str) -> str:
    """Return a section of ready HTML under a title of plain text."""
    return f"<section><h2>{escaped(title)}</h2>{body}</section>\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int = 1) -> str:
    """Return a table of ready HTML cells; all but the first ``texts`` columns hold numbers."""

    def cells(tag: str, values: Sequence[str]) -> str:
        return "".join(
            f"<{tag}>{value}</{tag}>" if index < texts else f'<{tag} class="n">{value}</{tag}>'
            for index, value in enumerate(values)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{cells("th", head)}</tr></thead><tbody>{body}</tbody></table></div>'


def facts_list(facts: Sequence[tuple[str, str]]) -> str:
    """Return a list of facts: names of plain text, values of ready HTML."""
    items = "".join(f"<dt>{escaped(key)}</dt><dd>{value}</dd>" for key, value in facts)
    return f'<dl class="facts-list">{items}</dl>'


def details(label: str, body: str) -> str:
    """Return ready HTML folded under a label of plain text."""
    return f"<details><summary>{escaped(label)}</summary>{body}</details>"


def figure_text(value: Any) -> str:
    """Write a figure with four digits, as HTML."""
    if value is None:
        return "n/a"
    if isinstance(value, float):
        return f"{value:.4f}" if 0.001 <= abs(value) < 10 else f"{value:.4g}"
    return escaped(value)


def written_at(at: float) -> str:
    """Write a Unix time as a date."""
    return datetime.fromtimestamp(at, UTC).strftime("%d %B %Y, %H:%M UTC")


def escaped(value: Any) -> str:
    """Write a value so that it is only text in HTML, in an attribute and in SVG."""
    return html.escape(UNPRINTABLE.sub("\ufffd", str(value)), quote=True)
