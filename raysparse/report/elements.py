"""What the pages are made of, and how they are rendered."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from raysparse.report.charts import Chart
from raysparse.report.template import MACROS, STYLE

_GOOD = ("finished", "completed", "succeeded")
_BAD = ("failed", "error", "stopped", "aborted")


@dataclass(frozen=True)
class Tile:
    """One key figure."""

    name: str
    value: str
    unit: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a table: numbers, unless its style says `text`."""

    title: str
    style: str = ""

    @property
    def text(self) -> bool:
        """Whether the column is aligned to the left."""
        return "text" in self.style


@dataclass(frozen=True)
class Row:
    """A row of a table, as texts."""

    cells: Sequence[str]
    style: str = ""


@dataclass(frozen=True)
class Grid:
    """A table of the page."""

    columns: Sequence[Column]
    rows: Sequence[Row] = field(default_factory=list)


def figures_of(charts: Iterable[Chart]) -> list[dict[str, Any]]:
    """Return charts as the template's `figures` takes them."""
    return [{**vars(chart), "svg": Markup(chart.svg)} for chart in charts]


def grid_of_tree(tree: Mapping[str, Any]) -> Grid | None:
    """Lay out all that a tree holds, a row for each dotted key; None where it holds nothing."""
    rows = [Row([name, value]) for name, value in _flat(tree)]
    return Grid([Column("key", "text"), Column("value", "text name")], rows) if rows else None


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        yield name, ", ".join(str(inner) for inner in value)
    elif value is not None:
        yield name, str(value)


def status_class(status: str) -> str:
    """Return the style of a status: good, bad or neither."""
    return "good" if status in _GOOD else "bad" if status in _BAD else ""


def render(template: str, values: Mapping[str, Any]) -> str:
    """Return a page as HTML; what is no `Markup` is escaped."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(MACROS + template).render({"style": Markup(STYLE), **values})
    return page.lstrip().encode(errors="replace").decode()
