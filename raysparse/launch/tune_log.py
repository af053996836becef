"""The log of a tune run: all that it knows of its trials, one JSON line whenever one begins or ends."""

import json
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, ValidationError

from raysparse.config import Config
from raysparse.errors import CheckpointError
from raysparse.train.run_folder import RunFolder

TRIALS = "trials.jsonl"

Status = Literal["started", "finished", "stopped", "failed"]


class TrialRecord(Config):
    """A line of the log; the last one of a number is what the trial came to."""

    number: int = Field(ge=0)
    values: dict[str, Any]
    """What the trial tries, by dotted key of the train job."""
    run_folder: str
    status: Status
    """started; then finished, stopped for being behind, or failed."""
    means: tuple[float, ...] = ()
    """Mean metric so far, weighted by rows, after each day past warm-up."""
    metric: float | None = None
    """Mean metric over the last days, weighted by rows; finished trials alone have it."""
    auc: float | None = None
    """Mean AUC over the same days."""
    seconds: float | None = None
    """Of the process that brought the trial to its end."""
    error: str | None = None
    """Why it failed."""


def ended(
    number: int, values: dict[str, Any], run_folder: str, outcome: dict[str, Any] | None, means: Sequence[float]
) -> TrialRecord:
    """Return the record of a trial that has ended: an outcome has its `error` or its scores, none means stopped."""
    status = "stopped" if outcome is None else "failed" if "error" in outcome else "finished"
    return TrialRecord(
        number=number, values=values, run_folder=run_folder, status=status, means=tuple(means), **(outcome or {})
    )


class TrialLog:
    """Reads the log of a run folder and adds to it; driver.

    Each line is on the disk before anybody acts on it. Writing ends with RunTakenError once another process has taken
    the folder over.
    """

    def __init__(self, folder: RunFolder) -> None:
        """Read what is there; CheckpointError names a line that is damaged."""
        self._folder = RunFolder(folder.path, folder.claim())
        self.records = read_trials(folder)

    def add(self, record: TrialRecord) -> None:
        """Add a line."""
        self.records.append(record)
        self._folder.write(TRIALS, "".join(_line(record) for record in self.records))

    def values(self) -> dict[int, dict[str, Any]]:
        """Return what each trial that began tries, by number."""
        return {record.number: record.values for record in self.records}

    def done(self) -> list[TrialRecord]:
        """Return the trials that have ended, in the order of their end."""
        return [record for record in self.records if record.status != "started"]


def read_trials(folder: RunFolder) -> list[TrialRecord]:
    """Return the lines of a log that may be growing; none where there is no log. Any process."""
    if not folder.exists(TRIALS):
        return []
    records: list[TrialRecord] = []
    for number, line in enumerate(folder.read(TRIALS).splitlines(), start=1):
        try:
            records.append(TrialRecord.model_validate_json(line))
        except ValidationError as error:
            fault = error.errors()[0]
            key = ".".join(str(part) for part in fault["loc"])
            raise CheckpointError(
                f"{folder.url(TRIALS)}, line {number} is damaged: {f'{key}: ' if key else ''}{fault['msg']}; mend it, "
                "or delete it to run that trial again"
            ) from None
    return records


def _line(record: TrialRecord) -> str:
    tree = record.model_dump(mode="json")
    return json.dumps({key: value for key, value in tree.items() if value not in (None, [])}) + "\n"
