"""MovieLens ratings, dated by their timestamp; the label is whether a film is rated 4 or better.

The layout is found from the files: 100K (`u.data`, `u.item`, `u.user`), 1M (`ratings.dat`, `movies.dat`,
`users.dat`, split by `::`), 20M and later (`ratings.csv`, `movies.csv`), or atomic files with a typed header
(`NAME.inter`, `NAME.item`, `NAME.user`). Each may be packed with gzip. Ratings are in no order of days.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from raysparse.data.arrow import compute as pc
from raysparse.data.delimited import LineFormat
from raysparse.data.fields import Faults, to_floats, to_unix_seconds, to_utc_days
from raysparse.data.hashing import hash_id_lists, hash_ids
from raysparse.data.lines import Span, count_rows, cut_file
from raysparse.data.rejects import Rejects
from raysparse.data.schema import LABEL, IdFeature, Schema
from raysparse.data.sources.movielens_files import (
    Layout,
    column_names,
    find_layout,
    read_films,
    read_users,
    record_wrong_rows,
)
from raysparse.data.sources.source import (
    FEW,
    Column,
    Encoded,
    EncodedBlock,
    SourceConfig,
    encode_text,
    id_features,
)

_HIGHEST_RATING = 5
_SIZES: dict[str, int | None] = {"user": None, "item": None, "genres": FEW, "release_year": FEW}
_USER_SIZES: dict[str, int | None] = {"gender": FEW, "age": FEW, "occupation": FEW}


class MovielensConfig(SourceConfig):
    """A dated stream of ratings; the day is the UTC date of the timestamp."""

    source: Literal["movielens"] = "movielens"
    input: str
    """The folder of the files."""
    positive_rating: float = Field(default=4.0, gt=0, le=_HIGHEST_RATING)
    """The lowest rating that is label 1."""


class Movielens:
    """Ratings joined with what is known of film and user."""

    ordered = False
    notes = ""

    def __init__(self, config: MovielensConfig) -> None:
        self.config = config
        self.layout: Layout = find_layout(config.input)

    def schema(self) -> Schema:
        """User, item, genres (a list) and year of the film; gender, age and occupation where there are users."""
        sizes = _SIZES | (_USER_SIZES if self.layout.users else {})
        features = id_features(self.config, sizes)
        return Schema(ids=tuple(_listed(feature) if feature.name == "genres" else feature for feature in features))

    def spans(self) -> list[Span]:
        """Byte ranges of the ratings (driver)."""
        return cut_file(self.layout.ratings, column_names(self.layout))

    def count(self, span: Span) -> Span:
        """Lines of the span (worker)."""
        return count_rows(span)

    def expected_days(self, spans: list[Span]) -> list[str]:
        """Known from the rows alone."""
        return []

    def read_beside(self, rejects: Rejects) -> None:
        """Read films and users for the rows that are wrong (worker)."""
        record_wrong_rows(self.layout, rejects)

    def read(self, span: Span, rejects: Rejects) -> Iterator[EncodedBlock]:
        """Encode the ratings of a span (worker)."""
        schema = self.schema()
        form: LineFormat = self.layout.rating_format
        films = read_films(self.layout)
        users = read_users(self.layout)

        def encode(texts: dict[str, pa.Array], places: npt.NDArray[np.int64], faults: Faults) -> Encoded:
            user, item = texts["user"], texts["item"]
            for name in ("user", "item"):
                faults.mark(np.asarray(texts[name].is_null()), f"{name} is missing")
            joined = _look_up(films, item) | _look_up(users, user) | {"user": user, "item": item}
            rating = to_floats(texts["rating"], "rating", faults)
            faults.mark(
                (rating <= 0) | (rating > _HIGHEST_RATING), f"rating is not above 0 and up to {_HIGHEST_RATING}"
            )
            columns: dict[str, Column] = {LABEL: (rating >= self.config.positive_rating).astype(np.int8)}
            for feature in schema.ids:
                hash_them = hash_id_lists if feature.multi_valued else hash_ids
                columns[feature.name] = hash_them(joined[feature.name], feature.rows)
            days = to_utc_days(to_unix_seconds(texts["timestamp"], "timestamp", False, faults), "timestamp", faults)
            return Encoded(columns, days)

        return encode_text(span, form, encode, schema, rejects)


def _listed(feature: IdFeature) -> IdFeature:
    return feature.model_copy(update={"multi_valued": True})


def _look_up(table: dict[str, pa.Array], keys: pa.Array) -> dict[str, pa.Array]:
    """Find the table's other columns for each key; null where the key is not in it."""
    if not table:
        return {}
    place = pc.index_in(keys, table["key"])
    return {name: column.take(place) for name, column in table.items() if name != "key"}
