"""KDD Cup 2012, track 2: sponsored search, joined with the users' profiles.

`training.txt` holds, tab separated and without a header: click, impression, display_url, ad_id, advertiser_id,
depth, position, query_id, keyword_id, title_id, description_id, user_id. `userid_profile.txt` holds user_id,
gender (1 male, 2 female, 0 unknown) and age (1 to 6, a bracket). A user_id of 0 is an unknown user.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from raysparse.data.arrow import compute as pc
from raysparse.data.delimited import LineFormat, read_whole_file
from raysparse.data.fields import Faults, Mask, block_days, block_names, to_integers
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
    beside,
    encode_text,
    id_features,
    reject_beside,
)

_COLUMNS = (
    "click",
    "impression",
    "display_url",
    "ad_id",
    "advertiser_id",
    "depth",
    "position",
    "query_id",
    "keyword_id",
    "title_id",
    "description_id",
    "user_id",
)
_FORMAT = LineFormat(columns=_COLUMNS, used=_COLUMNS)
_SIZES: dict[str, int | None] = {name: FEW if name in ("depth", "position") else None for name in _COLUMNS[2:]}
_SIZES |= {"gender": FEW, "age": FEW}
_PROFILE = LineFormat(columns=("user_id", "gender", "age"), used=("user_id", "gender", "age"))
_HIGHEST = {"gender": 2, "age": 6}

Codes = npt.NDArray[np.int8]


class Kdd12Config(SourceConfig):
    """Search ads, in the order of the file and without dates: cut in equal blocks."""

    source: Literal["kdd12"] = "kdd12"
    input: str
    """`training.txt` (or `.gz`), or the folder it lies in."""
    user_profile: str = ""
    """The file of the users' profiles; empty: `userid_profile.txt` (or `.gz`) beside the training file."""
    num_days: int = Field(default=10, ge=1, le=1000)
    """Equal blocks of rows that stand for days."""


class Kdd12:
    """A row a line, with label 1 where it was clicked at least once; unknown users have no gender and age."""

    ordered = True
    notes = ""

    def __init__(self, config: Kdd12Config) -> None:
        self.config = config
        files = list_files(config.input, ("training.txt", "training.txt.gz"), r"training.*\.txt(\.gz)?")
        self.files = files
        profiles = config.user_profile or beside(files[0], "userid_profile.txt*")
        self.profile = list_files(profiles, key="user_profile")[0]

    def schema(self) -> Schema:
        """Ten ids of the line, and the user's gender and age."""
        return Schema(ids=id_features(self.config, _SIZES))

    def spans(self) -> list[Span]:
        """Byte ranges of the files (driver)."""
        return [span for path in self.files for span in cut_file(path)]

    def count(self, span: Span) -> Span:
        """Lines of the span (worker)."""
        return count_rows(span)

    def expected_days(self, spans: list[Span]) -> list[str]:
        """All blocks."""
        return block_names(self.config.num_days)

    def read_beside(self, rejects: Rejects) -> None:
        """Read the profiles for the rows that are wrong (worker)."""
        for block, _, misfits in _read_profiles(self.profile):
            reject_beside(self.profile, block, misfits, rejects)

    def read(self, span: Span, rejects: Rejects) -> Iterator[EncodedBlock]:
        """Encode the rows of a span (worker)."""
        schema = self.schema()

        def encode(texts: dict[str, pa.Array], places: npt.NDArray[np.int64], faults: Faults) -> Encoded:
            users = to_integers(texts["user_id"], "user_id", faults, optional=True)
            texts = texts | {"user_id": _known(texts["user_id"], users)} | _profiles_of(users, self.profile)
            columns: dict[str, Column] = {LABEL: _clicked(texts, faults)}
            columns |= {feature.name: hash_ids(texts[feature.name], feature.rows) for feature in schema.ids}
            return Encoded(columns, block_days(places, span.total_rows, self.config.num_days))

        return encode_text(span, _FORMAT, encode, schema, rejects)


def _clicked(texts: dict[str, pa.Array], faults: Faults) -> npt.NDArray[np.int8]:
    clicks = to_integers(texts["click"], "click", faults)
    impressions = to_integers(texts["impression"], "impression", faults)
    faults.mark(clicks < 0, "click is below 0")
    faults.mark(impressions < 1, "impression is below 1")
    faults.mark(clicks > impressions, "more clicks than impressions")
    return (clicks > 0).astype(np.int8)


def _known(texts: pa.Array, users: npt.NDArray[np.float64]) -> pa.Array:
    return pc.if_else(pa.array(users == 0), pa.scalar(None, pa.string()), texts)


def _profiles_of(users: npt.NDArray[np.float64], path: str) -> dict[str, pa.Array]:
    """Gender and age of each user as text, null where unknown."""
    known, codes = _load_profiles(path)
    if not len(known):
        return {name: pa.nulls(len(users), pa.string()) for name in _HIGHEST}
    wanted = np.nan_to_num(users, nan=-1).astype(np.int64)
    place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    found = known[place] == wanted
    return {name: _as_text(values[place], found) for name, values in codes.items()}


def _as_text(codes: Codes, found: Mask) -> pa.Array:
    return pa.array(codes, mask=~found | (codes == 0)).cast(pa.string())


@lru_cache(maxsize=1)
def _load_profiles(path: str) -> tuple[npt.NDArray[np.int64], dict[str, Codes]]:
    """Sorted users with their gender and age: 10 bytes a user, loaded once per worker process."""
    blocks = [columns for _, columns, _ in _read_profiles(path)]
    users = np.concatenate([block["user_id"] for block in blocks]).astype(np.int64)
    order = np.argsort(users, kind="stable")
    codes = {name: np.concatenate([block[name] for block in blocks]).astype(np.int8)[order] for name in _HIGHEST}
    return users[order], codes


def _read_profiles(path: str) -> Iterator[tuple]:
    """Blocks of the file with its good rows as numbers, and the reasons of the lines that are none."""
    for block, rows in read_whole_file(path, _PROFILE):
        faults = Faults(len(rows.lines))
        columns = {name: to_integers(rows.columns[name], name, faults) for name in _PROFILE.columns}
        for name, highest in _HIGHEST.items():
            faults.mark((columns[name] < 0) | (columns[name] > highest), f"{name} is not between 0 and {highest}")
        good = faults.good_rows()
        wrong = {int(rows.lines[row]): reason for row, reason in faults.reasons.items()}
        yield (
            block,
            {name: values[good] for name, values in columns.items()},
            dict(sorted((rows.misfits | wrong).items())),
        )
