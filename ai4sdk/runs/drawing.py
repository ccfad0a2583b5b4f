"""The few parts that pictures on our pages are drawn with, as SVG text.

Colours come from the page, so that they suit light and dark.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ai4sdk.runs.page import escaped

__all__ = ["DRAWING_STYLE", "clipped", "drawing", "element", "label", "polyline"]

DRAWING_STYLE = """
:root { --faint:#c3cad4 } @media (prefers-color-scheme: dark) { :root { --faint:#4a5565 } }
svg { display:block; width:100%; height:auto; color:var(--ink) }
svg text { fill:var(--quiet); font:12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
svg text.label { paint-order:stroke; stroke:var(--card); stroke-width:3px; stroke-linejoin:round }
svg text.name { fill:var(--ink); font-weight:600 }
svg .axis { stroke:var(--faint); stroke-width:1 } svg .grid { stroke:var(--line); stroke-width:1 }
svg .dot { fill:var(--accent); fill-opacity:.55; stroke:var(--card); stroke-width:.5 }
svg .dot:hover { stroke:var(--ink); stroke-width:2 }
svg .amount { fill:var(--accent) }
"""
"""CSS of a page with drawings, beside that of every page."""


def element(name: str, *, title: str = "", text: str = "", **attributes: Any) -> str:
    """Return an element; all texts are plain.

    Parameters
    ----------
    name
        Of the element.
    title
        What is shown while the pointer rests on it.
    text
        Its content.
    attributes
        Its attributes; numbers are written with one decimal, an underscore as a hyphen (at the end not at all).
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{f"{value:.1f}" if isinstance(value, float) else escaped(value)}"'
        for key, value in attributes.items()
    )
    content = (f"<title>{escaped(title)}</title>" if title else "") + escaped(text)
    return f"<{name}{written}>{content}</{name}>" if content else f"<{name}{written}/>"


def label(x: float, y: float, text: str, *, anchor: str = "middle", most: int = 24, class_: str = "label") -> str:
    """Return a text, cut to so many characters; then it is whole in its title."""
    short = clipped(text, most)
    return element("text", x=x, y=y, text_anchor=anchor, class_=class_, text=short, title=text if short != text else "")


def polyline(points: Iterable[tuple[float, float]], *, title: str = "", **attributes: Any) -> str:
    """Return a line through points."""
    return element("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), title=title, **attributes)


def drawing(width: float, height: float, name: str, parts: Iterable[str]) -> str:
    """Return a drawing that is as wide as its place, with what it shows as its name for those who do not see it."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escaped(name)}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" style="min-width:{width * 0.62:.0f}px">{"".join(parts)}</svg>'
    )


def clipped(text: str, most: int) -> str:
    """Cut a text in its middle where it is longer than so many characters."""
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"
