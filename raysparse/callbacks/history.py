"""Writes a line per finished day and arm."""

from raysparse.train.callback import Callback
from raysparse.train.run_folder import RunFolder
from raysparse.train.state import TrainState


class History(Callback):
    """Keeps history.jsonl: each day and arm stands there once, however often the run was killed. Rank 0 writes."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    def fit_start(self, state: TrainState) -> None:
        """Drop the lines of days that the checkpoint does not know as finished: they will be made again."""
        if not state.is_rank_0:
            return
        finished = {day.day for day in state.days[: state.position.day_index]}
        known = self._folder.history()
        kept = [record for record in known if record["day"] in finished]
        if len(kept) != len(known):
            self._folder.write_history(kept)

    def day_end(self, state: TrainState) -> None:
        """Add the day's lines."""
        if state.is_rank_0:
            self._folder.write_history([*self._folder.history(), *state.records])
