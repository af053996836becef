"""Trains finalists and baselines alone, each with several learning rates, and compares what they predicted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from raysparse.cost.record import Cost
from raysparse.data.dataset import Day
from raysparse.data.split import Split
from raysparse.job import SearchJob, TrainJob
from raysparse.launch.trainer import open_run, train
from raysparse.models import ModelConfig
from raysparse.train.metrics import entropy
from raysparse.train.run_folder import RunFolder

Record = dict[str, Any]


class RunDisplay(Protocol):
    """Shows how the runs go on."""

    def run_done(self, name: str, validation: float | None, test: float | None, seconds: float) -> None:
        """Show a finished run: its log losses and how long it took."""
        ...

    def message(self, text: str) -> None:
        """Show a line."""
        ...


@dataclass(frozen=True)
class Contender:
    """A model that is trained alone."""

    kind: str
    """finalist or baseline."""
    name: str
    model: ModelConfig
    cost: Cost
    facts: Record
    """What the results say of it besides."""


class Quiet:
    """Shows nothing of a run but its messages."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show

    def message(self, text: str) -> None:
        """Pass it on."""
        self._show(text)

    def plan(self, rows: list[Record]) -> None:
        """Show nothing."""

    def progress(self, event: Record) -> None:
        """Show nothing."""

    def day(self, records: list[Record]) -> None:
        """Show nothing."""


def compete(
    job: SearchJob, contenders: Sequence[Contender], split: Split, folder: RunFolder, display: RunDisplay
) -> list[Record]:
    """Train each contender over all days with each learning rate, and return a row for each; driver.

    A run predicts each day before it learns it, so validation and test days are scored by a model that has not seen
    them. A contender's learning rate is the one with the least validation loss; the test days choose nothing.
    """
    rows = [_contest(job, contender, split, folder, display) for contender in contenders]
    finalists = [row for row in rows if row["kind"] == "finalist"]
    best = min(finalists, key=lambda row: row["validation_log_loss"], default=None)
    for row in rows:
        row["chosen"] = row is best
    return rows


def _contest(job: SearchJob, contender: Contender, split: Split, folder: RunFolder, display: RunDisplay) -> Record:
    runs = [_run(job, contender, rate, split, folder, display) for rate in job.finalists.learning_rates]
    best = min(runs, key=lambda run: run["validation_log_loss"])
    return {
        "kind": contender.kind,
        "name": contender.name,
        **contender.facts,
        **contender.cost.model_dump(),
        **{key: value for key, value in best.items() if key not in ("folder", "seconds")},
        "runs": runs,
    }


def _run(
    job: SearchJob, contender: Contender, rate: float, split: Split, folder: RunFolder, display: RunDisplay
) -> Record:
    own = folder.url(f"{contender.kind}s", f"{contender.name}-lr{rate:g}")
    train_job = _train_job(job, contender, rate, own)
    summary = finish_run(train_job, Quiet(display.message))
    history = [record for record in RunFolder(own).history() if record["arm"] == "trained"]
    validation, test = mean_scores(history, split.validation), mean_scores(history, split.test)
    display.run_done(
        f"{contender.kind} {contender.name}, learning rate {rate:g}",
        validation["log_loss"],
        test["log_loss"],
        summary["seconds"],
    )
    return {
        "learning_rate": rate,
        **{f"validation_{name}": value for name, value in validation.items()},
        **{f"test_{name}": value for name, value in test.items()},
        "folder": own,
        "seconds": summary["seconds"],
    }


def finish_run(job: TrainJob, display: Quiet) -> Record:
    """Run a train job to its end, or take the summary of one that has ended; driver."""
    job, folder = open_run(job, "resume")
    return train(job, folder, display)


def _train_job(job: SearchJob, contender: Contender, rate: float, run_folder: str) -> TrainJob:
    optimizer = job.finalists.optimizer
    return TrainJob(
        kind="train",
        name=f"{contender.kind}-{contender.name}",
        run_folder=run_folder,
        seed=job.seed,
        data=job.data,
        model=contender.model,
        optimizer=optimizer.model_copy(update={"dense": optimizer.dense.model_copy(update={"learning_rate": rate})}),
        sharding=job.sharding,
        scaling=job.scaling,
        checkpoint=job.checkpoint,
    )


def mean_scores(history: Sequence[Record], days: Sequence[Day]) -> dict[str, float | None]:
    """Return log loss and AUC over some days of a run, each day weighted by its rows; null where none defines it."""
    names = {day.day for day in days}
    records = [record for record in history if record["day"] in names]
    return {name: _mean([(record[name], record["rows"]) for record in records]) for name in ("log_loss", "auc")}


def _mean(values: Sequence[tuple[float | None, int]]) -> float | None:
    defined = [(value, rows) for value, rows in values if value is not None]
    return sum(value * rows for value, rows in defined) / sum(rows for _, rows in defined) if defined else None


def best_log_loss(days: Sequence[Day]) -> float | None:
    """Return the teacher's own log loss over some days, where the stream was generated by one."""
    known = [(day.best_ne * entropy(day.base_rate), day.rows) for day in days if day.best_ne is not None]
    return _mean(known) if len(known) == len(days) else None
