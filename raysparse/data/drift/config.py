"""What a drifting stream looks like: its size, the popularity of its ids, and how its concepts move."""

from datetime import date, timedelta
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from raysparse.config import Config
from raysparse.data.schema import MAX_TABLE_ROWS, DenseFeature, IdFeature, Schema

TableRows = Annotated[int, Field(ge=2, le=MAX_TABLE_ROWS)]


class NoDrift(Config):
    """The same concepts every day: the null against which any effect of drift is read."""

    kind: Literal["none"] = "none"


class SlowDrift(Config):
    """Concepts are exchanged one after the other, each with a fade; an exchanged concept never comes back."""

    kind: Literal["slow"] = "slow"
    concepts_per_day: float = Field(default=0.5, gt=0, le=1000)
    """Concepts that are exchanged per day, out of `num_concepts` active ones."""
    fade_days: float = Field(default=3.0, ge=0, le=1000)
    """Days in which the new concept takes over from the old one."""


class SuddenDrift(Config):
    """Every `every_days` a share of the concepts is exchanged at once, for good."""

    kind: Literal["sudden"] = "sudden"
    every_days: int = Field(default=10, ge=1)
    """Days between two exchanges; the first one is on the day of this index."""
    share: float = Field(default=0.25, gt=0, le=1)
    """Share of the active concepts exchanged each time; they take turns."""


class RecurringDrift(Config):
    """The stream goes round a cycle of concept sets; the day one period later has exactly the same concepts."""

    kind: Literal["recurring"] = "recurring"
    period_days: int = Field(default=20, ge=2)
    """Days until the same concepts are active again."""
    num_sets: int = Field(default=2, ge=2, le=1000)
    """Concept sets in a cycle, of equal length."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Share of the concepts that differ between the sets; the others stay."""

    @field_validator("num_sets")
    @classmethod
    def _day_for_each_set(cls, num_sets: int, info: ValidationInfo) -> int:
        if num_sets > info.data.get("period_days", num_sets):
            raise ValueError(f"at most one set for each of period_days = {info.data['period_days']}")
        return num_sets


Drift = Annotated[NoDrift | SlowDrift | SuddenDrift | RecurringDrift, Field(discriminator="kind")]


class DriftConfig(Config):
    """A click stream of any size, shaped like Criteo's, labelled by a hidden teacher whose concepts move."""

    source: Literal["drift"] = "drift"
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Fixes everything; the same seed gives the same bytes, in whichever order the parts are made."""
    first_day: str = "2030-01-01"
    """Name of day 0, an ISO date."""
    num_days: int = Field(default=30, ge=1, le=100_000, validate_default=True)
    """Days of the stream. More days leave the earlier ones as they are."""
    rows_per_day: int = Field(default=100_000, ge=1, le=10**12)
    """Rows of each day."""
    num_dense: int = Field(default=13, ge=1, le=10_000)
    """Dense features, on the scale of a log1p-transformed count."""
    num_ids: int = Field(default=26, ge=2, le=10_000)
    """Single-valued id features, each with a table of its own."""
    rows_per_table: TableRows | tuple[TableRows, ...] = 100_000
    """Rows of every table, or of each table in turn; row 0 stays free for a missing id."""
    zipf_exponent: float = Field(default=1.2, gt=0, le=3)
    """Popularity of ids: the id at rank r is drawn with a probability like r to the power of minus this."""
    base_rate: float = Field(default=0.25, gt=0.001, lt=0.999)
    """Share of rows with label 1, which every day is calibrated to."""
    signal: float = Field(default=1.25, gt=0, le=10)
    """Standard deviation of the teacher's logit: the larger, the less noise in the labels."""
    interaction_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the logit's variance that comes from interactions of two features; the rest is first-order."""
    signal_share: float = Field(default=0.3, gt=0, le=1)
    """Share of the id features (at least two) that the teacher reads; the others are noise."""
    num_concepts: int = Field(default=12, ge=8, le=10_000)
    """Concepts (hidden functions of one or two features) that are active at a time."""
    drift: Drift = NoDrift()
    """How the active concepts change from day to day."""
    id_churn: float = Field(default=0.0, ge=0, le=1)
    """Share of the ids that go each day and leave their rank to an id that was rare before."""

    @field_validator("first_day")
    @classmethod
    def _is_date(cls, first_day: str) -> str:
        try:
            return date.fromisoformat(first_day).isoformat()
        except ValueError as error:
            raise ValueError(f"an ISO date such as 2030-01-01 ({error})") from None

    @field_validator("num_days")
    @classmethod
    def _before_end_of_calendar(cls, num_days: int, info: ValidationInfo) -> int:
        left = (date.max - date.fromisoformat(info.data.get("first_day", "0001-01-01"))).days + 1
        if num_days > left:
            raise ValueError(f"at most {left}, the days from first_day = {info.data['first_day']} to the year 9999")
        return num_days

    @field_validator("rows_per_table")
    @classmethod
    def _table_for_each_feature(cls, rows: int | tuple[int, ...], info: ValidationInfo) -> int | tuple[int, ...]:
        num_ids = info.data.get("num_ids")
        if isinstance(rows, tuple) and num_ids is not None and len(rows) != num_ids:
            raise ValueError(f"one number for each of num_ids = {num_ids} features, or a single one for all")
        return rows

    @field_validator("drift")
    @classmethod
    def _fades_in_time(cls, drift: Drift, info: ValidationInfo) -> Drift:
        places = info.data.get("num_concepts")
        if isinstance(drift, SlowDrift) and places and drift.concepts_per_day * drift.fade_days > places:
            raise ValueError(
                f"concepts_per_day * fade_days at most num_concepts = {places}, "
                "so that a concept has taken over before it goes"
            )
        return drift

    def date_of(self, day_index: int) -> date:
        """Return the date of a day."""
        return date.fromisoformat(self.first_day) + timedelta(days=day_index)

    @property
    def table_rows(self) -> tuple[int, ...]:
        """Rows of each table, in the order of the id features."""
        rows = self.rows_per_table
        return rows if isinstance(rows, tuple) else (rows,) * self.num_ids

    @property
    def signal_features(self) -> tuple[int, ...]:
        """Positions of the id features that the teacher reads, spread evenly."""
        count = max(2, round(self.signal_share * self.num_ids))
        return tuple(position * self.num_ids // count for position in range(count))


def schema(config: DriftConfig) -> Schema:
    """Return the features of the stream: dense_00, dense_01, ..., id_00, id_01, ..."""
    return Schema(
        dense=tuple(DenseFeature(name=f"dense_{number:02d}") for number in range(config.num_dense)),
        ids=tuple(IdFeature(name=f"id_{number:02d}", rows=rows) for number, rows in enumerate(config.table_rows)),
    )
