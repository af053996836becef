"""Converts files of events without Ray, and reads back what was written."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raysparse.config import Config, check
from raysparse.data.dataset import ITEM_NAMES, Manifest
from raysparse.data.rejects import read_rejects
from raysparse.data.sequences import GeneratedSequencesConfig, SequencesConfig
from raysparse.data.sequences.convert import convert, open_sequences

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"

Row = tuple[list[str], list[str]]
"""Names of the items of a history, and of its targets."""


class Sequences(Config):
    """What the command reads."""

    prepare: SequencesConfig | GeneratedSequencesConfig


@dataclass
class Converted:
    """A data set of sequences, with the names of its items."""

    manifest: Manifest
    rows: dict[str, list[Row]]
    counts: dict[str, int]
    """Count of each item, in the order of their rows."""
    faults: list[tuple[str, int, str]]
    """File, line and reason of each bad row."""


def settings(**keys: object) -> SequencesConfig:
    """The config of these keys, checked as the command checks it."""
    config = check(Sequences, {"prepare": {"source": "sequences", **keys}}, "the test").prepare
    assert isinstance(config, SequencesConfig)
    return config


def converted(folder: Path, **keys: object) -> Converted:
    """Convert to a new folder `out`, and read it back."""
    config = settings(**keys)
    output = folder / "out"
    output.mkdir()
    manifest = convert(config, open_sequences(config), str(output))
    items = pq.read_table(output / ITEM_NAMES)
    names = items["item"].to_pylist()
    assert manifest.data_schema.ids[0].rows == len(names) + 1
    rows: dict[str, list[Row]] = {}
    for day in manifest.days:
        rows[day.day] = []
        for file in day.files:
            table = pq.ParquetFile(output / file.path).read()
            assert table.schema.equals(manifest.data_schema.arrow())
            assert table["label"].to_pylist() == [1] * file.rows
            lists = zip(table["history"].to_pylist(), table["targets"].to_pylist(), strict=True)
            rows[day.day] += [(named(history, names), named(targets, names)) for history, targets in lists]
    faults = [(Path(reject.file).name, reject.line, reject.reason) for reject in read_rejects(str(output))]
    return Converted(manifest, rows, dict(zip(names, items["count"].to_pylist(), strict=True)), faults)


def named(items: list[int], names: list[str]) -> list[str]:
    """Names of rows of the items' table."""
    return [names[item - 1] for item in items]


def sequences(result: Converted) -> list[str]:
    """Each user's whole sequence, as the test has it, its one-letter items joined."""
    return ["".join(history + targets) for history, targets in result.rows["test"]]


def shared(name: str) -> str:
    """Path of real data; the test is skipped where it is not there."""
    if not (DATA / name).exists():
        pytest.skip(f"real data is not there: ../shared/data/{name}")
    return str(DATA / name)
