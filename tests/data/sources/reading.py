"""Reads a source without Ray, in spans of any size."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from raysparse.data import lines
from raysparse.data.hashing import hash_ids
from raysparse.data.lines import lay_out
from raysparse.data.rejects import Reject, Rejects
from raysparse.data.sources import FileConfig, open_source

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"


@dataclass
class Reading:
    """All rows of a source, in the order of the input."""

    table: pa.Table
    days: list[str]
    rejects: list[Reject]
    num_left_out: int

    def column(self, name: str) -> list:
        return self.table[name].to_pylist()

    def faults(self) -> list[tuple[int, str]]:
        return [(row.line, row.reason) for row in self.rejects]


def read_source(config: FileConfig) -> Reading:
    source = open_source(config)
    rejects = Rejects(config.max_bad_rows)
    source.read_beside(rejects)
    tables, days, num_left_out = [], [], 0
    for span in lay_out([source.count(span) for span in source.spans()]):
        for block in source.read(span, rejects):
            assert block.table.schema.equals(source.schema().arrow())
            tables.append(block.table)
            days += [block.days.name(row) for row in range(block.table.num_rows)]
            num_left_out += block.num_left_out
    return Reading(pa.concat_tables(tables), days, rejects.rows, num_left_out)


def shared(name: str) -> str:
    """Path of a folder of real data; the test is skipped where it is not there."""
    if not (DATA / name).exists():
        pytest.skip(f"real data is not there: ../shared/data/{name}")
    return str(DATA / name)


def id_of(text: str, rows: int) -> int:
    """The row that a text is hashed to."""
    return int(hash_ids(pa.array([text]), rows)[0])


def cut_spans(monkeypatch: pytest.MonkeyPatch, num_bytes: int) -> None:
    """Cut every file in spans and blocks of so many bytes."""
    whole: Callable[..., list[lines.Span]] = lines.cut_file

    def cut(path: str, columns: tuple[str, ...] = ()) -> list[lines.Span]:
        return whole(path, columns, num_bytes)

    monkeypatch.setattr(lines, "SPAN_BYTES", num_bytes)
    for name in ("criteo", "avazu", "kdd12", "movielens", "table"):
        monkeypatch.setattr(f"raysparse.data.sources.{name}.cut_file", cut)
