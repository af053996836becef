"""The sharding plan as lines to print: one a table, or one a kind of table where there are many."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MOST_SINGLE_TABLES = 12
"""Up to so many tables each one has its line; above, equal ones share a line."""


@dataclass(frozen=True)
class PlanLine:
    """One table, or several that are sharded alike; rows and bytes are then their sums."""

    label: str
    """The table's name, or how many tables and which: `26 tables c00..c25`."""
    num_tables: int
    rows: int
    dim: int
    num_bytes: int
    sharding: str
    kernel: str
    ranks: str
    """The ranks that hold a part of it: `0-3,6`."""
    optimizer: str
    optimizer_bytes: int


def plan_lines(tables: Sequence[Mapping[str, Any]], group: bool | None = None) -> list[PlanLine]:
    """Lay out `plan.json`, a mapping per table, as lines.

    Tables of one dimension, sharding, kernel and optimizer share a line where `group` is true, or where it is
    left out and there are more than `MOST_SINGLE_TABLES`.
    """
    if group is None:
        group = len(tables) > MOST_SINGLE_TABLES
    if not group:
        return [_line([table]) for table in tables]
    kinds: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for table in tables:
        key = tuple(str(table.get(name, "")) for name in ("dim", "sharding", "kernel", "optimizer"))
        kinds.setdefault(key, []).append(table)
    return [_line(alike) for alike in kinds.values()]


def rank_ranges(ranks: Iterable[int]) -> str:
    """Write ranks as ranges: `0-3,6` for 0, 1, 2, 3 and 6."""
    ranges: list[list[int]] = []
    for rank in sorted(set(ranks)):
        if ranges and rank == ranges[-1][1] + 1:
            ranges[-1][1] = rank
        else:
            ranges.append([rank, rank])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def _line(alike: Sequence[Mapping[str, Any]]) -> PlanLine:
    first, last = alike[0], alike[-1]
    name = str(first["table"])
    return PlanLine(
        label=name if len(alike) == 1 else f"{len(alike)} tables {name}..{last['table']}",
        num_tables=len(alike),
        rows=sum(table["rows"] for table in alike),
        dim=first["dim"],
        num_bytes=sum(table.get("bytes") or 0 for table in alike),
        sharding=str(first.get("sharding", "")),
        kernel=str(first.get("kernel", "")),
        ranks=rank_ranges(rank for table in alike for rank in table.get("ranks") or ()),
        optimizer=str(first.get("optimizer", "")),
        optimizer_bytes=sum(table.get("optimizer_bytes") or 0 for table in alike),
    )
