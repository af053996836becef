"""Drawings as SVG that take their colours from the page they stand in."""

import io
import re
from html import escape
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

INK, MUTED, GRID, BAND, PAPER = "#010203", "#010204", "#010205", "#010206", "#010207"
"""Colours that stand for one of the page's, so that one drawing is readable on a light and on a dark page."""
_PAGE_COLOURS = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    BAND: "var(--band)",
    PAPER: "var(--page)",
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 8.5,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "path.simplify_threshold": 0.2,
}
"""Settings under which a figure of the page is drawn."""


def drawn_colour(colour: str) -> str:
    """Return what a figure draws a colour with: matplotlib knows none of the page's, `var(--...)`."""
    return next((placeholder for placeholder, of_page in _PAGE_COLOURS.items() if of_page == colour), colour)


def to_svg(figure: Figure, title: str) -> str:
    """Return one `<svg>` element, without scripts or references; `title` is what a screen reader says."""
    output = io.StringIO()
    with rc_context({"svg.hashsalt": title}):
        figure.savefig(
            output, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
    return _for_page(output.getvalue(), title)


def _for_page(svg: str, title: str) -> str:
    """Strip an SVG file to an element for an HTML page: page colours, no references, no ids but those it uses."""
    svg = svg[svg.index("<svg ") :]
    for placeholder, colour in _PAGE_COLOURS.items():
        svg = svg.replace(placeholder, colour)
    svg = svg.replace("xlink:href=", "href=")
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r" font-family: [^;\"]*;", "", svg)
    svg = re.sub(r"<defs>\s*<style[^>]*>.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(?<= d=")[^"]*', lambda path: re.sub(r"\.(\d)\d+", r".\1", path[0]).replace("\n", " "), svg)
    view_box = re.search(r'viewBox="[^"]*"', svg)
    assert view_box is not None
    element = f'<svg {view_box[0]} role="img" aria-label="{escape(title)}">' + svg[svg.index(">") + 1 :]
    return re.sub(r"\n\s*", "\n", element)
