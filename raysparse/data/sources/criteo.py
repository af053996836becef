"""Criteo's display ads: the Kaggle set and the terabyte log.

A line is a label, 13 counts and 26 hexadecimal ids, tab separated, without a header; an empty value is missing.
"""

import re
from collections.abc import Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from raysparse.data.delimited import LineFormat
from raysparse.data.fields import Days, Faults, block_days, block_names, log_count, to_integers, to_label
from raysparse.data.hashing import hash_ids
from raysparse.data.lines import Span, count_rows, cut_file, list_files
from raysparse.data.rejects import Rejects
from raysparse.data.schema import LABEL, MAX_TABLE_ROWS, DenseFeature, Schema
from raysparse.data.sources.source import (
    Column,
    Encoded,
    EncodedBlock,
    SourceConfig,
    encode_text,
    id_features,
)
from raysparse.errors import DataError

COUNTS = tuple(f"I{number}" for number in range(1, 14))
IDS = tuple(f"C{number}" for number in range(1, 27))
_FORMAT = LineFormat(columns=(LABEL, *COUNTS, *IDS), used=(LABEL, *COUNTS, *IDS))
_DAY_FILE = r"day_(\d{1,3})(\.gz)?"


class CriteoKaggleConfig(SourceConfig):
    """Seven days of display ads in one file, in order but without dates: cut in equal blocks."""

    source: Literal["criteo-kaggle"] = "criteo-kaggle"
    input: str
    """`train.txt` (or `.gz`), a glob of such files, or the folder it lies in."""
    num_days: int = Field(default=7, ge=1, le=1000)
    """Equal blocks of rows that stand for days; the file covers seven."""


class Criteo1tbConfig(SourceConfig):
    """The terabyte click log: a file a day, `day_0` to `day_23`."""

    source: Literal["criteo-1tb"] = "criteo-1tb"
    input: str
    """The folder of the files `day_N` or `day_N.gz`, or a glob for some of them."""
    rows_per_table: int = Field(default=1_000_000, ge=2, le=MAX_TABLE_ROWS)
    """Rows of each of the 26 embedding tables."""


def criteo_schema(config: SourceConfig) -> Schema:
    """13 optional counts and 26 ids."""
    dense = tuple(DenseFeature(name=name, optional=True) for name in COUNTS)
    return Schema(dense=dense, ids=id_features(config, dict.fromkeys(IDS)))


def encode_columns(texts: dict[str, pa.Array], schema: Schema, faults: Faults) -> dict[str, Column]:
    """Encode the label, the counts as log(1+x), and the ids hashed."""
    columns: dict[str, Column] = {LABEL: to_label(texts[LABEL], faults)}
    for name in COUNTS:
        columns[name] = log_count(to_integers(texts[name], name, faults, optional=True))
    for feature in schema.ids:
        columns[feature.name] = hash_ids(texts[feature.name], feature.rows)
    return columns


class CriteoKaggle:
    """Rows numbered over all files and cut in blocks."""

    ordered = True
    notes = ""

    def __init__(self, config: CriteoKaggleConfig) -> None:
        self.config = config

    def schema(self) -> Schema:
        """13 counts and 26 ids."""
        return criteo_schema(self.config)

    def spans(self) -> list[Span]:
        """Byte ranges of the files (driver)."""
        files = list_files(self.config.input, ("train.txt", "train.txt.gz"), r".*\.(txt|tsv|csv)(\.gz)?")
        return [span for path in files for span in cut_file(path)]

    def count(self, span: Span) -> Span:
        """Lines of the span (worker)."""
        return count_rows(span)

    def expected_days(self, spans: list[Span]) -> list[str]:
        """All blocks."""
        return block_names(self.config.num_days)

    def read_beside(self, rejects: Rejects) -> None:
        """Nothing lies beside the rows."""

    def read(self, span: Span, rejects: Rejects) -> Iterator[EncodedBlock]:
        """Encode the rows of a span (worker)."""
        schema = self.schema()

        def encode(texts: dict[str, pa.Array], places: npt.NDArray[np.int64], faults: Faults) -> Encoded:
            days = block_days(places, span.total_rows, self.config.num_days)
            return Encoded(encode_columns(texts, schema, faults), days)

        return encode_text(span, _FORMAT, encode, schema, rejects)


class Criteo1tb:
    """A file a day."""

    ordered = True
    notes = ""

    def __init__(self, config: Criteo1tbConfig) -> None:
        self.config = config

    def schema(self) -> Schema:
        """13 counts and 26 ids."""
        return criteo_schema(self.config)

    def spans(self) -> list[Span]:
        """Byte ranges of the files, by number of the day (driver)."""
        files = list_files(self.config.input, pattern=_DAY_FILE)
        days = {path: _day_of(path) for path in files}
        for path, other in zip(sorted(files, key=_day_of), sorted(files, key=_day_of)[1:], strict=False):
            if days[path] == days[other]:
                raise DataError(f"{path} and {other} are the same day; leave one of them in the folder")
        return [span for path in sorted(files, key=_day_of) for span in cut_file(path)]

    def count(self, span: Span) -> Span:
        """Lines of the span (worker)."""
        return count_rows(span)

    def expected_days(self, spans: list[Span]) -> list[str]:
        """One for each file."""
        return sorted({_day_of(span.path) for span in spans})

    def read_beside(self, rejects: Rejects) -> None:
        """Nothing lies beside the rows."""

    def read(self, span: Span, rejects: Rejects) -> Iterator[EncodedBlock]:
        """Encode the rows of a span (worker)."""
        schema = self.schema()
        names = [_day_of(span.path)]

        def encode(texts: dict[str, pa.Array], places: npt.NDArray[np.int64], faults: Faults) -> Encoded:
            return Encoded(encode_columns(texts, schema, faults), Days(np.zeros(len(places), np.int64), names))

        return encode_text(span, _FORMAT, encode, schema, rejects)


def _day_of(path: str) -> str:
    match = re.fullmatch(_DAY_FILE, path.rsplit("/", 1)[-1])
    if not match:
        raise DataError(f"{path} is not named day_N or day_N.gz; set `input` to the folder of such files")
    return f"{int(match.group(1)):03d}"
