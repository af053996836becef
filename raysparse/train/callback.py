"""Callbacks: what happens at the events of the training loop."""

from typing import Any

from raysparse.train.state import TrainState


class Callback:
    """Hooks at the events of `loop.fit`, called in this order on every rank.

        fit_start
        for each day:
            day_start           (not again where a run goes on within the day)
            for each batch:     score it
                score_batch_end
            scored
            for each batch:     train on it
                step_end
            day_end             records are complete, the position stands at the next day
        fit_end

    A callback with a state names it, so that it is saved and restored.
    """

    state_key: str = ""
    """Name of the callback's state in a checkpoint; empty: it has none."""

    def fit_start(self, state: TrainState) -> None:
        """Before the first day, after a restore."""

    def day_start(self, state: TrainState) -> None:
        """Before a day is scored."""

    def score_batch_end(self, state: TrainState, rows_done: int) -> None:
        """After each batch that was scored; `rows_done` rows of the day on all ranks."""

    def scored(self, state: TrainState) -> None:
        """After a day was scored, before it is trained on."""

    def step_end(self, state: TrainState) -> None:
        """After each training step; `state.position` stands behind it."""

    def day_end(self, state: TrainState) -> None:
        """After a day was trained on; `state.records` hold its history lines."""

    def fit_end(self, state: TrainState) -> None:
        """After the last day."""

    def state_dict(self) -> dict[str, Any]:
        """What has to be saved, as JSON."""
        return {}

    def load_state_dict(self, saved: dict[str, Any], state: TrainState) -> None:
        """Restore what `state_dict` gave, and add the arms that it has made; their tensors are read afterwards."""
