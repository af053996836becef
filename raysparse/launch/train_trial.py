"""A trial of a tune run: a process of Ray Tune's that drives one Train run."""

import json
import logging
import math
import os
import queue
import threading
from collections.abc import Sequence

from ray.tune import Trainable

from raysparse.config import Tree
from raysparse.data.dataset import TEST, Dataset
from raysparse.data.selection import EPOCH, select_days
from raysparse.errors import RaySparseError, RunEndedError, WorkerError
from raysparse.job import TrainJob
from raysparse.launch.trainer import first_line, open_run, train
from raysparse.train.run_folder import RunFolder
from raysparse.train.summary import DENSE

NUM_DAYS = "num_days"
MEAN = "mean"
NEWS = "news"
"""Keys of what a trial tells Tune: days past warm-up, the mean metric over them, and all else as JSON."""

_POLL_S = 1.0
_GRACE_S = 60.0
"""Longest time that a run is given to end when it is behind."""

News = Tree


class TrainTrial(Trainable):
    """Starts a Train run and tells of each of its days; takes no cores itself. One process for many trials in turn."""

    def setup(self, config: Tree, arguments: Tree | None = None) -> None:
        """Take the first trial; `arguments` are `metric`, `last_days` and `environment`, the same for all trials."""
        assert arguments is not None
        self._arguments = arguments
        # What was set for Ray Train on the driver holds for a run that is started here.
        os.environ.update(arguments["environment"])
        for name in ("ray.train", "ray.data"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self._run: TrialRun | None = None
        self._take(config)

    def reset_config(self, new_config: Tree) -> bool:
        """Take another trial; the run of one that was behind ends meanwhile, and gives its cores back."""
        if self._run is not None:
            self._run.end(timeout_s=0)
        self._take(new_config)
        return True

    def _take(self, config: Tree) -> None:
        # The run begins with the first step: Tune may make two processes for a trial, of which one is never asked.
        self._job = TrainJob.model_validate_json(config["job"])
        self._run = None
        self._means: list[float] = []
        self._failure: str | None = None

    def step(self) -> Tree:
        """Wait for news of the run, not for long: Tune would wait with it."""
        if self._failure is not None:
            raise WorkerError(self._failure)
        if self._run is None:
            self._run = TrialRun(self._job, self._arguments["metric"], self._arguments["last_days"])
        news = self._run.next_news(_POLL_S)
        self._means = news.get("means", self._means)
        self._failure = news.get("failure")
        return {
            NUM_DAYS: len(self._means),
            MEAN: self._means[-1] if self._means else math.nan,
            # As text: a float keeps all its digits, whatever Tune does to results.
            NEWS: json.dumps({**news, "means": self._means}),
            "done": "outcome" in news,
        }

    def cleanup(self) -> None:
        """End the run where it still goes on, so that its workers are gone before this process is."""
        if self._run is not None:
            self._run.end(_GRACE_S)


class TrialRun:
    """A Train run in a thread of this process: the display that it is shown on, which can end it.

    It goes on where its folder has a run that was begun.
    """

    def __init__(self, job: TrainJob, metric: str, last_days: int) -> None:
        self._job = job
        self._metric = metric
        self._last_days = last_days
        self._news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._days: list[Tree] = []
        self._num_days: int | None = None
        self._thread = threading.Thread(target=self._main, name="trial-run", daemon=True)
        self._thread.start()

    def next_news(self, timeout_s: float) -> News:
        """Return what comes next, empty where nothing does in time.

        `means` after a finished day but the last, `message`, and in the end either `outcome`, which is what the trial
        came to, or `failure`, after which a new process may try again.
        """
        try:
            return self._news.get(timeout=timeout_s)
        except queue.Empty:
            return {}

    def end(self, timeout_s: float) -> None:
        """Have the run end before its last day, and wait for it."""
        self._ended.set()
        self._thread.join(timeout_s)

    def plan(self, rows: list[Tree]) -> None:
        """Show nothing."""

    def progress(self, event: Tree) -> None:
        """Show nothing; RunEndedError where the run is to end."""
        if self._ended.is_set():
            raise RunEndedError(f"the run {self._job.run_folder} was ended")

    def message(self, text: str) -> None:
        """Pass a line on."""
        self._news.put({"message": text})

    def day(self, records: list[Tree]) -> None:
        """Pass a finished day on, once; the last one comes with the outcome."""
        record = next(record for record in records if record["arm"] == DENSE)
        if record["day"] != TEST and all(record["day"] != day["day"] for day in self._days):
            self._days.append(record)
            if len(self._days) < self._days_of_stream():
                self._news.put({"means": means_so_far(self._days, self._metric)})
        self.progress({})

    def _days_of_stream(self) -> int:
        if self._num_days is None:
            data = self._job.data
            days = select_days(Dataset.open(data.path), data.first_day, data.last_day, data.epochs)
            self._num_days = len([day for day in days if day.day != TEST])
        return self._num_days

    def _main(self) -> None:
        try:
            self._news.put({"outcome": self._train(), "means": means_so_far(self._days, self._metric)})
        except RunEndedError:
            return
        except WorkerError as error:
            self._news.put({"failure": first_line(error.__cause__ or error)})
        except RaySparseError as error:
            self._news.put({"outcome": {"error": str(error)}, "means": means_so_far(self._days, self._metric)})
        except BaseException as error:  # told by `next_news`
            self._news.put({"failure": f"{type(error).__name__}: {error}"})

    def _train(self) -> Tree:
        job, folder = open_run(self._job, "resume")
        for record in _of_trained_arm(folder):
            self.day([record])
        # A run within another one's job may not clear up after its workers, as a restart does: Tune starts a new
        # process instead, whose predecessor's reservations went with it.
        once = job.model_copy(update={"scaling": job.scaling.model_copy(update={"max_restarts": 0})})
        seconds = train(once, folder, self)["seconds"]
        days = [record for record in _of_trained_arm(folder) if not record["warm_up"]]
        days = days if self._job.data.epochs is not None else days[-self._last_days :]
        metric = weighted_mean(days, self._metric)
        if metric is None:
            names = ", ".join(day["day"] for day in days)
            return {"error": f"{self._metric} is undefined on {names}: one class only, or a model of another task"}
        return {"metric": metric, "auc": weighted_mean(days, "auc"), "seconds": seconds}


def _of_trained_arm(folder: RunFolder) -> list[Tree]:
    return [record for record in folder.history() if record["arm"] == DENSE and record["day"] != TEST]


def means_so_far(days: Sequence[Tree], metric: str) -> list[float]:
    """Return the mean metric after each day past warm-up, from the first on which it is defined."""
    known = [day for day in days if not day["warm_up"]]
    means = [weighted_mean(known[:count], metric) for count in range(1, len(known) + 1)]
    return [mean for mean in means if mean is not None]


def weighted_mean(days: Sequence[Tree], metric: str) -> float | None:
    """Return the mean of a metric over days, weighted by rows or targets; None where no day defines it.

    Of epochs, which are all scored on the same rows, the least counts.
    """
    known = [(value, day.get("targets", day["rows"])) for day in days if (value := _value(day, metric)) is not None]
    if not known:
        return None
    if days[0]["day"].startswith(EPOCH):
        return min(value for value, _ in known)
    return sum(value * weight for value, weight in known) / sum(weight for _, weight in known)


def _value(day: Tree, metric: str) -> float | None:
    if metric.startswith("1-"):
        value = day.get(metric.removeprefix("1-"))
        return None if value is None else 1.0 - value
    return day.get(metric)
