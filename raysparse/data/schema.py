"""What a data set's columns are: the label, the dense features, the id features and their tables."""

from functools import cache
from typing import Literal, Self

import pyarrow as pa
from pydantic import Field, model_validator

from raysparse.config import Config

LABEL = "label"
"""Name of the label's column: int8, 0 or 1; 1 in every row of a sequence, all of which has happened."""

HISTORY = "history"
"""Of a sequence: the items of a user before those that are to be predicted, oldest first."""

TARGETS = "targets"
"""Of a sequence: the items that come after the history, in order, each to be predicted from all before it."""

ITEM_TABLE = "item"
"""Table that history and targets of a sequence share; a row per item, and row 0, which stands for none."""

MISSING_ID = 0
"""Row of every table that stands for a missing single-valued id; no other id is hashed to it."""

MAX_TABLE_ROWS = 2**31 - 1
"""Ids are int32 on disk."""


class DenseFeature(Config):
    """A number per row, float32 on disk, already transformed; NaN marks a missing value."""

    name: str = Field(min_length=1)
    optional: bool = False
    """Whether values may be missing. The model then sees a second input, 1 where the value was missing."""


class IdFeature(Config):
    """One id per row (int32), or a list of them (list of int32), already hashed to rows of a table."""

    name: str = Field(min_length=1)
    rows: int = Field(ge=2, le=MAX_TABLE_ROWS)
    """Rows of the table; row 0 stands for a missing id."""
    table: str = ""
    """Table that the feature reads; features with the same table share it. Empty: a table of its own."""
    multi_valued: bool = False
    """Whether a row holds a list of ids (jagged, may be empty) instead of exactly one."""

    @property
    def table_name(self) -> str:
        """Name of the table the feature reads; of what a module cannot be called, such as `type`, one with `_table`."""
        name = self.table or self.name
        return f"{name.replace('.', '_')}_table" if _is_no_module_name(name) else name


@cache
def _is_no_module_name(name: str) -> bool:
    from torch import nn  # 2 s, which the command's help should not take

    # TorchRec keeps tables in such a dictionary, which refuses names of its own attributes.
    return "." in name or hasattr(nn.ModuleDict(), name)


class Schema(Config):
    """The features of a data set, in the order of its columns."""

    task: Literal["click", "next_item"] = "click"
    """What a row asks: whether the label is 1, or which items come after a history (see `sequence_schema`)."""
    dense: tuple[DenseFeature, ...] = ()
    ids: tuple[IdFeature, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [LABEL, "day", *(f.name for f in self.dense), *(f.name for f in self.ids)]
        double = sorted({name for name in names if names.count(name) > 1})
        if double:
            raise ValueError(f"names that are used once; {', '.join(double)} stands there more than once")
        sizes: dict[str, int] = {}
        given: dict[str, str] = {}
        for feature in self.ids:
            own = feature.table or feature.name
            if given.setdefault(feature.table_name, own) != own:
                raise ValueError(f"table names that differ; {own!r} and {given[feature.table_name]!r} come to the same")
            if sizes.setdefault(feature.table_name, feature.rows) != feature.rows:
                raise ValueError(f"one size for the shared table {feature.table_name!r}")
        return self

    @property
    def num_dense_inputs(self) -> int:
        """Width of a batch's dense matrix: a value per dense feature and a mark per optional one."""
        return len(self.dense) + sum(feature.optional for feature in self.dense)

    def arrow(self) -> pa.Schema:
        """Columns of a part file; nothing is nullable, which saves decoding the definition levels."""
        fields = [pa.field(LABEL, pa.int8(), nullable=False)]
        fields += [pa.field(f.name, pa.float32(), nullable=False) for f in self.dense]
        ids = pa.list_(pa.field("element", pa.int32(), nullable=False))
        fields += [pa.field(f.name, ids if f.multi_valued else pa.int32(), nullable=False) for f in self.ids]
        return pa.schema(fields)


def sequence_schema(num_items: int) -> Schema:
    """Describe rows of sequences over items 1 to `num_items`: a history, and the targets that come after it."""
    features = (
        IdFeature(name=name, rows=num_items + 1, table=ITEM_TABLE, multi_valued=True) for name in (HISTORY, TARGETS)
    )
    return Schema(task="next_item", ids=tuple(features))
