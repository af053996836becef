"""Keeps the rows of the tables within a budget of bytes, choosing them again as the data drifts."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field

from raysparse.config import Config
from raysparse.sharding.model import ShardedModel
from raysparse.sharding.tracked_rows import TrackedRows
from raysparse.sparsity.rows import RowBudget, RowPart, RowUtility, array_bytes, choose_rows
from raysparse.train.callback import Callback
from raysparse.train.state import TrainState

_BYTES_PER_WEIGHT = 4


class RowPruningConfig(Config):
    """Tables that keep only the rows that are worth their bytes; with optimizer.sparse.kind of Adagrad's family."""

    kind: Literal["row_pruning"] = "row_pruning"
    budget: float = Field(gt=0, le=1)
    """Share of the bytes of all tables that the kept rows may take."""
    first_day: int = Field(default=1, ge=1)
    """Days that are learned from before rows are chosen first."""
    every_days: int = Field(default=1, ge=1)
    """Days between choices."""
    decay: float = Field(default=0.9, ge=0, le=1)
    """What a day's accesses and gradients count a day later."""
    hysteresis: float = Field(default=0.1, ge=0)
    """How much more utility a pruned row needs to take a kept one's place, as a share."""
    floor_rows: int = Field(default=1, ge=1)
    """Rows that each table keeps in any case."""


class RowPruning(Callback):
    """Prunes rows of the trained arm's tables at the end of days, and lets them return when they are worth it.

    A pruned row is the zero vector from then on: while days are scored, in every training step (what a step gives it
    is taken back before the next one) and in checkpoints, so that training sees what serves. What
    is measured of it meanwhile are its accesses and the gradients that it would have learned from; with enough of them
    it returns at the end of a day, still zero, and learns from the next day on. Comes before what saves.

    TorchRec's in-training embedding pruning does not serve here: its operators (FBGEMM's init_address_lookup and
    prune_embedding_tables) exist for GPUs alone, and it fits each table into a size that is fixed beforehand, where
    here all tables share one budget. Its remapping saves memory while training, too, which this does not.
    """

    state_key = "row_pruning"

    def __init__(self, config: RowPruningConfig) -> None:
        self._config = config
        self._rows: TrackedRows | None = None
        self._utilities: list[RowUtility] = []
        self._facts: dict[str, Any] = {}

    def load_state_dict(self, saved: dict[str, Any], state: TrainState) -> None:
        """Restore the facts, and make the tensors that are read afterwards."""
        self._facts = saved["facts"]
        self._track(state)

    def state_dict(self) -> dict[str, Any]:
        """What is known of the kept rows."""
        return {"facts": self._facts}

    def fit_start(self, state: TrainState) -> None:
        """Begin to count, unless a checkpoint has done so."""
        if self._rows is None:
            # With `start_from` the tables have sums already, of gradients that are none of this run's.
            self._track(state).take_squares()

    def _track(self, state: TrainState) -> TrackedRows:
        model = _model(state)
        self._rows = rows = TrackedRows(model.tables, model.device)
        self._utilities = [RowUtility.zeros(len(part.kept), model.device) for part in self._rows.ranges]
        self._rows.save("utility_accesses", [utility.accesses for utility in self._utilities])
        self._rows.save("utility_squares", [utility.squares for utility in self._utilities])
        self._tell(state)
        return rows

    def step_end(self, state: TrainState) -> None:
        """Hold pruned rows at zero."""
        assert self._rows is not None
        self._rows.hold_at_zero()
        if state.save_agreed:
            self._rows.agree()

    def day_end(self, state: TrainState) -> None:
        """Add the day to the utilities, and choose rows when it is time."""
        assert self._rows is not None
        measured = zip(self._rows.take_accesses(), self._rows.take_squares(), strict=True)
        for utility, (accesses, squares) in zip(self._utilities, measured, strict=True):
            utility.update(accesses, squares, self._config.decay)
        days = state.position.day_index - self._config.first_day
        if days >= 0 and days % self._config.every_days == 0:
            self._choose()
            self._tell(state)

    def _choose(self) -> None:
        rows = self._rows
        assert rows is not None
        shapes = rows.tables.shapes
        number = {table: index for index, table in enumerate(shapes)}
        sizes = [num_rows for num_rows, _ in shapes.values()]
        row_bytes = _row_bytes(shapes)
        parts = [
            RowPart(
                table=number[part.table],
                first=sum(sizes[: number[part.table]]) + part.first_row,
                utility=utility.value(),
                kept=part.kept,
                bytes_per_row=row_bytes[part.table],
                counted=rows.counted_here(part),
            )
            for part, utility in zip(rows.ranges, self._utilities, strict=True)
        ]
        whole = sum(num_rows * row_bytes[table] for table, (num_rows, _) in shapes.items())
        budget = RowBudget(int(self._config.budget * whole), self._config.floor_rows, self._config.hysteresis)
        rows.keep(choose_rows(parts, len(shapes), budget, rows.add))
        counts = torch.zeros(len(shapes), dtype=torch.int64)
        for part in rows.ranges:
            counts[number[part.table]] += int(part.kept.sum()) * rows.counted_here(part)
        self._facts = _facts_of(shapes, dict(zip(shapes, rows.add(counts).tolist(), strict=True)))

    def _tell(self, state: TrainState) -> None:
        arm = state.trained
        if not self._facts:
            shapes = _model(state).tables.shapes
            self._facts = _facts_of(shapes, {table: rows for table, (rows, _) in shapes.items()})
        arm.facts.update(self._facts)


def _row_bytes(shapes: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    return {table: _BYTES_PER_WEIGHT * columns for table, (_, columns) in shapes.items()}


def _facts_of(shapes: Mapping[str, tuple[int, int]], kept: Mapping[str, int]) -> dict[str, Any]:
    """What the history says of the rows: how many of which table are kept, and what they take."""
    row_bytes = _row_bytes(shapes)
    return {
        "kept_rows": sum(kept.values()),
        "kept_row_bytes": sum(count * row_bytes[table] for table, count in kept.items()),
        "table_bytes": sum(rows * row_bytes[table] for table, (rows, _) in shapes.items()),
        "remapping_bytes": sum(array_bytes(rows) for table, (rows, _) in shapes.items() if kept[table] < rows),
        "kept_table_rows": dict(kept),
        "table_rows": {table: rows for table, (rows, _) in shapes.items()},
    }


def _model(state: TrainState) -> ShardedModel:
    model = state.trained.model
    assert isinstance(model, ShardedModel)
    return model
