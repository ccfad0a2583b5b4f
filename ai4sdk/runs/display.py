"""How our objects show themselves in a notebook."""

from __future__ import annotations

import html
from collections.abc import Mapping

__all__ = ["html_table"]


def html_table(title: str, rows: Mapping[str, object]) -> str:
    """Return a small table of facts as HTML; what users wrote is escaped, empty facts are left out."""
    cells = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td style='text-align:left'>{html.escape(str(value))}</td></tr>"
        for name, value in rows.items()
        if value not in (None, "")
    )
    return f"<b>{html.escape(title)}</b><table>{cells}</table>"
