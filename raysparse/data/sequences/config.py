"""What sequences are made of: files of events in one of several formats, or a generator."""

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from raysparse.config import Config
from raysparse.data.schema import MAX_TABLE_ROWS

SHORTEST_GENERATED = 4
"""Events of a generated user at least: with four, each part of a leave-one-out data set has a row of the user."""

_UNDATED = ("text", "split")
_RATED = ("movielens", "amazon", "table")


class EventColumns(Config):
    """Columns of own files of events, for `format: table`."""

    user: str = Field(min_length=1)
    """Name of the column of users, integers or text."""
    item: str = Field(min_length=1)
    """Name of the column of items, integers or text."""
    time: str = Field(min_length=1)
    """Name of the column of times."""
    time_format: Literal["unix_s", "unix_ms", "date"] = "unix_s"
    """How numbers and texts give the time; `date` is 2013-01-31 or 2013-01-31T10:00:00Z, UTC where no zone is given.
    Events are in order by microseconds; those of a user at the same one stay as they are in the input."""
    rating: str = ""
    """Name of the column of ratings, for `min_rating`; empty: there is none."""
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    """What stands between the columns of a text file; values may be quoted with `"`, line ends inside are not read."""


class SequencesConfig(Config):
    """Files of events, who had to do with what and when, as each user's items in order of time."""

    source: Literal["sequences"] = "sequences"
    input: str
    """A file, a glob or a folder; a folder for `movielens` and `split`."""
    format: Literal["text", "movielens", "amazon", "gowalla", "split", "table"]
    """`text`: a line per user, `user item item ...` in order of time. `movielens`: ratings, in any layout of MovieLens.
    `amazon`: reviews, `user,item,rating,timestamp` or JSON lines. `gowalla`: check-ins, tab separated. `split`: a ready
    split of train_input, val_input, val_output and test_output. `table`: own CSV or Parquet files (see `columns`)."""
    split: Literal["leave_one_out", "days", "ready"] = "leave_one_out"
    """`leave_one_out`: each user's last item is for the test, the one before it for validation; of a ready split, the
    last two items of train_input, which alone is read. `days`: each day is predicted from the days before it. `ready`:
    as the files of the format `split` are cut; where val_input lacks a user, the test skips an item of theirs."""
    columns: EventColumns | None = Field(default=None, validate_default=True)
    """Names of the columns, for `format: table`."""
    min_user_events: int = Field(default=1, ge=1)
    """Events of a user at least, on all days; users and items with too few go until nothing changes (a k-core)."""
    min_item_events: int = Field(default=1, ge=1)
    """Events of an item at least."""
    min_rating: float | None = None
    """Events that are rated below are left out; empty: ratings are not read."""
    max_history: int = Field(default=200, ge=1, le=100_000)
    """Items of history that a row keeps, with `split: days`."""
    max_bad_rows: int = Field(default=100, ge=0)
    """Rows that may be unreadable before the preparation stops; they are kept aside in `rejects/`."""

    @field_validator("split")
    @classmethod
    def _split_of_format(cls, split: str, info: ValidationInfo) -> str:
        form = info.data.get("format")
        if split == "days" and form in _UNDATED:
            raise ValueError(f"'leave_one_out', as the format {form!r} has no dates")
        if split == "ready" and form not in (None, "split"):
            raise ValueError(f"'leave_one_out' or 'days', as the format {form!r} is not split; 'split' alone is")
        return split

    @field_validator("columns")
    @classmethod
    def _columns_of_table(cls, columns: EventColumns | None, info: ValidationInfo) -> EventColumns | None:
        is_table = info.data.get("format") == "table"
        if is_table and columns is None:
            raise ValueError("the names of the columns `user`, `item` and `time`, which the format 'table' needs")
        if not is_table and columns is not None and "format" in info.data:
            raise ValueError(f"nothing, as the format {info.data['format']!r} has its own columns; leave it out")
        return columns

    @field_validator("min_user_events", "min_item_events")
    @classmethod
    def _ready_split_stays(cls, events: int, info: ValidationInfo) -> int:
        if events > 1 and info.data.get("split") == "ready":
            raise ValueError("1, as a split that is ready is taken as it is")
        return events

    @field_validator("min_rating")
    @classmethod
    def _ratings_are_there(cls, rating: float | None, info: ValidationInfo) -> float | None:
        form, columns = info.data.get("format"), info.data.get("columns")
        if rating is None or form is None:
            return rating
        if form not in _RATED:
            raise ValueError(f"nothing, as the format {form!r} has no ratings; leave it out")
        if form == "table" and columns is not None and not columns.rating:
            raise ValueError("nothing, as columns.rating is not given; name the column of the ratings there")
        return rating


class GeneratedSequencesConfig(Config):
    """Sequences of any size whose next item often follows from the last two, made from a seed."""

    source: Literal["generated-sequences"] = "generated-sequences"
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Fixes everything; the same seed gives the same bytes, in whichever order the parts are made."""
    num_users: int = Field(default=10_000, ge=1, le=2**40)
    """Users. More users leave the earlier ones as they are."""
    num_items: int = Field(default=10_000, ge=2, le=MAX_TABLE_ROWS - 1)
    """Items. No more than 10 million get a list of their counts beside the rows."""
    num_days: int | None = Field(default=None, ge=1, le=10_000)
    """Days over which a user's events are spread evenly; empty: each user's last two items are left out instead."""
    mean_length: float = Field(default=50.0, ge=SHORTEST_GENERATED, le=100_000)
    """Mean events of a user, before lengths are cut at 4 and at `max_length`."""
    length_skew: float = Field(default=1.0, ge=0, le=4)
    """Standard deviation of the logarithm of a user's events (log-normal); 0: all users have as many."""
    max_length: int = Field(default=1_000, ge=SHORTEST_GENERATED, le=100_000)
    """Events of a user at most."""
    max_history: int = Field(default=200, ge=1, le=100_000)
    """Items of history that a row keeps, where there are days."""
    zipf_exponent: float = Field(default=1.0, gt=0, le=3)
    """Popularity of items: the one at rank r is drawn with a probability like r to the power of minus this."""
    signal_share: float = Field(default=0.6, ge=0, le=1)
    """Share of items that follow from the two before them; the others are drawn by popularity."""
    ring_size: int = Field(default=1_000, ge=2, le=10**6)
    """Items of similar popularity on one ring; what follows an item lies on its ring."""
    num_successors: int = Field(default=3, ge=1, le=1_000)
    """Items that can follow an item; which of them does is told by the item before it."""
