"""Rows that could not be read: kept aside with their file, line and reason, and counted.

    DATASET/rejects/part-00000.jsonl     {"file": ..., "line": 17, "reason": ..., "day": ..., "text": ...}

`line` counts from 1; for Parquet files it is the row. `day` is given where the row's day could be read.
"""

import dataclasses
import json
import posixpath
from collections import Counter
from collections.abc import Iterable

import fsspec

from raysparse.data.dataset import REJECTS
from raysparse.errors import DataError

TEXT_LENGTH = 500
"""Characters of a rejected row that are kept."""
_NUM_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Reject:
    """One row that could not be read."""

    file: str
    line: int
    reason: str
    text: str
    day: str = ""


class TooManyRejectsError(Exception):
    """Stops the reading of a span; the driver says it to the user, with the rejects of all spans."""


class Rejects:
    """The rejected rows of one span; a worker collects them and writes them as one file."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.rows: list[Reject] = []

    def add(self, reject: Reject) -> None:
        """Keep a row aside; TooManyRejectsError with the first one over the limit."""
        self.rows.append(reject)
        if len(self.rows) > self.limit:
            raise TooManyRejectsError

    def write(self, dataset_path: str, name: str) -> None:
        """Write `rejects/part-NAME.jsonl` where there is anything to write."""
        if not self.rows:
            return
        filesystem, root = fsspec.core.url_to_fs(dataset_path)
        folder = posixpath.join(root, REJECTS)
        filesystem.makedirs(folder, exist_ok=True)
        lines = "".join(json.dumps(dataclasses.asdict(row)) + "\n" for row in self.rows)
        filesystem.pipe_file(posixpath.join(folder, f"part-{name}.jsonl"), lines.encode())


def readable(raw: bytes) -> str:
    """Decode the text of a rejected row: bytes that are not UTF-8 escaped, cut at `TEXT_LENGTH` characters."""
    return raw[: 4 * TEXT_LENGTH].decode("utf-8", errors="backslashreplace")[:TEXT_LENGTH]


def read_rejects(dataset_path: str) -> list[Reject]:
    """All rejected rows of a data set, in the order of the input (driver)."""
    filesystem, root = fsspec.core.url_to_fs(dataset_path)
    paths = sorted(filesystem.glob(posixpath.join(root, REJECTS, "part-*.jsonl")))
    return [Reject(**json.loads(line)) for path in paths for line in filesystem.cat_file(path).splitlines()]


def count_by_reason(rejects: Iterable[Reject]) -> dict[str, int]:
    """How many rows were rejected for each reason, reasons in alphabetic order."""
    return dict(sorted(Counter(row.reason for row in rejects).items()))


def check_limit(rejects: list[Reject], limit: int, dataset_path: str) -> None:
    """DataError once more than `limit` rows were rejected, with the first few and where they all lie."""
    if len(rejects) <= limit:
        return
    shown = "".join(f"\n  {row.file}:{row.line}: {row.reason}" for row in rejects[:_NUM_SHOWN])
    raise DataError(
        f"more than {limit} rows could not be read; the first of them:{shown}\n"
        f"they lie in {posixpath.join(dataset_path, REJECTS)}; "
        "mend the input, or raise `max_bad_rows` to leave them out"
    )
