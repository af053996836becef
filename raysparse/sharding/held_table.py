"""A table of items that one process holds whole."""

from torch import Tensor

from raysparse.data.schema import ITEM_TABLE
from raysparse.sharding.tables import TableShard


class HeldTable:
    """Answers as the sharded tables of a sequence model do, for ranking. Any process, no ranks."""

    def __init__(self, weight: Tensor) -> None:
        """`weight` `[M + 1, D]`."""
        rows, columns = weight.shape
        self.shards = [TableShard(ITEM_TABLE, 0, 0, weight, {})]
        self.shapes = {ITEM_TABLE: (rows, columns)}
        self.column_bounds = {ITEM_TABLE: (0, columns)}
