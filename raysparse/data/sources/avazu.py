"""Avazu's click log: a csv with a header whose `hour` is YYMMDDHH; 22 categorical columns, no numbers.

`id` names the row and is no feature. The file is in order of the hour.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raysparse.data.delimited import LineFormat
from raysparse.data.fields import Faults, to_days, to_label
from raysparse.data.hashing import hash_ids
from raysparse.data.lines import Span, count_rows, cut_file, list_files
from raysparse.data.rejects import Rejects
from raysparse.data.schema import LABEL, Schema
from raysparse.data.sources.source import (
    FEW,
    Column,
    Encoded,
    EncodedBlock,
    SourceConfig,
    encode_text,
    header_columns,
    id_features,
)

_SIZES: dict[str, int | None] = {
    "C1": FEW,
    "banner_pos": FEW,
    "site_id": None,
    "site_domain": None,
    "site_category": FEW,
    "app_id": None,
    "app_domain": FEW,
    "app_category": FEW,
    "device_id": None,
    "device_ip": None,
    "device_model": None,
    "device_type": FEW,
    "device_conn_type": FEW,
    "C14": None,
    "C15": FEW,
    "C16": FEW,
    "C17": FEW,
    "C18": FEW,
    "C19": FEW,
    "C20": FEW,
    "C21": FEW,
    "hour_of_day": FEW,
    "weekday": FEW,
}
_FROM_FILE = tuple(name for name in _SIZES if name not in ("hour_of_day", "weekday"))
_USED = ("click", "hour", *_FROM_FILE)


class AvazuConfig(SourceConfig):
    """Ten days of mobile ads, dated by the hour."""

    source: Literal["avazu"] = "avazu"
    input: str
    """`train.csv` (or `train`, or `.gz`), a glob of such files, or the folder it lies in."""
    unit: Literal["day", "hour"] = "day"
    """What counts as a day of the stream: `2014-10-21`, or an hour of it, `2014-10-21T05`."""


class Avazu:
    """Rows dated by their hour stamp."""

    ordered = True
    notes = ""

    def __init__(self, config: AvazuConfig) -> None:
        self.config = config

    def schema(self) -> Schema:
        """21 ids of the file, the hour of the day and the weekday."""
        return Schema(ids=id_features(self.config, _SIZES))

    def spans(self) -> list[Span]:
        """Byte ranges of the files (driver)."""
        preferred = ("train.csv", "train.csv.gz", "train", "train.gz")
        files = list_files(self.config.input, preferred, r".*\.csv(\.gz)?")
        return [span for path in files for span in cut_file(path, header_columns(path, ",", _USED))]

    def count(self, span: Span) -> Span:
        """Lines of the span (worker)."""
        return count_rows(span)

    def expected_days(self, spans: list[Span]) -> list[str]:
        """Known from the rows alone."""
        return []

    def read_beside(self, rejects: Rejects) -> None:
        """Nothing lies beside the rows."""

    def read(self, span: Span, rejects: Rejects) -> Iterator[EncodedBlock]:
        """Encode the rows of a span (worker)."""
        schema = self.schema()
        form = LineFormat(columns=span.columns, used=_USED, delimiter=",")
        day_format = "%Y-%m-%dT%H" if self.config.unit == "hour" else "%Y-%m-%d"

        def encode(texts: dict[str, pa.Array], places: npt.NDArray[np.int64], faults: Faults) -> Encoded:
            days = to_days(texts["hour"], "hour", lambda text: _render(text, day_format), faults)
            texts = texts | _clock(texts["hour"])
            columns: dict[str, Column] = {LABEL: to_label(texts["click"], faults)}
            columns |= {feature.name: hash_ids(texts[feature.name], feature.rows) for feature in schema.ids}
            return Encoded(columns, days)

        return encode_text(span, form, encode, schema, rejects)


def _clock(hours: pa.Array) -> dict[str, pa.Array]:
    """Hour of the day and weekday (0 is Monday) of the hour stamps, as text."""
    encoded = hours.dictionary_encode()
    stamps = encoded.dictionary.to_pylist()
    return {
        name: pa.array([_render(stamp, form) for stamp in stamps], pa.string()).take(encoded.indices)
        for name, form in (("hour_of_day", "%H"), ("weekday", "%w"))
    }


def _render(stamp: str, form: str) -> str | None:
    if len(stamp) != 8 or not stamp.isdecimal():
        return None
    try:
        return datetime.strptime(stamp, "%y%m%d%H").strftime(form)
    except ValueError:
        return None
