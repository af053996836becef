"""Ray Tune with a memory that is ours: it runs trials side by side, and a log on the disk knows what came of them."""

import logging
import os
import shutil
import tempfile
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import CheckpointConfig, FailureConfig, RunConfig, TuneConfig, Tuner
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher as TuneSearcher
from ray.tune.stopper import Stopper

from raysparse.config import Tree
from raysparse.errors import WorkerError


class Relay(TuneSearcher):
    """Lets trials start and takes what comes of them; Tune calls it, on the driver."""

    def __init__(self, metric: str) -> None:
        super().__init__(metric=metric, mode="min")
        self._fault: BaseException | None = None

    @abstractmethod
    def missing(self) -> str | None:
        """Say how far the trials are where some have not ended, such as `3 of 4 trials`."""

    def guarded(self, work: Callable[[], Any]) -> Any:
        """Do what Tune asked for; None where it fails, which ends the run."""
        try:
            return work()
        except BaseException as fault:
            # Tune would log it and go on: it is stopped, and the fault is raised when it has ended.
            self._fault = self._fault or fault
            return None

    @property
    def is_faulty(self) -> bool:
        """Whether something went wrong in Tune's hands."""
        return self._fault is not None

    @property
    def is_over(self) -> bool:
        """Whether all trials are to end, those that have not started as well."""
        return self.is_faulty

    def check(self) -> None:
        """Raise what went wrong in Tune's hands, or where Tune ended before all trials did."""
        if self._fault is not None:
            raise self._fault
        done = self.missing()
        if done is not None:
            raise WorkerError(f"Ray Tune ended after {done}; go on with --resume")

    def __getstate__(self) -> Tree:
        # Tune pickles what it is given, to restore it after a kill: here the log does that.
        return {}

    def set_search_properties(self, metric: Any, mode: Any, config: Tree, **spec: Any) -> bool:
        """Tune's own goal, of which there is none."""
        return True

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the log holds it all."""
        Path(checkpoint_path).write_text("")

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing, see `save`."""


class _StopWhenOver(Stopper):
    """Ends all trials once the relay says so."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def __call__(self, trial_id: str, result: Tree) -> bool:
        """Stop no trial alone."""
        return False

    def stop_all(self) -> bool:
        """Return whether to end."""
        return self._relay.is_over

    def __getstate__(self) -> Tree:
        return {}


def run_tune(
    trainable: Any,
    relay: Relay,
    *,
    resources: dict[str, float],
    num_samples: int,
    num_parallel: int,
    max_failures: int,
    scheduler: TrialScheduler | None = None,
) -> None:
    """Run trials until the relay has no more, in processes that are used again; driver, connected to Ray.

    `trainable` is as Tune wants it, its arguments bound; `resources` are what each process takes. Raises what went
    wrong in Tune's hands, WorkerError where Tune ended before all trials did.
    """
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # Tune's own tables; a run has a display of its own
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    # Tune keeps notes, which nobody reads.
    notes = tempfile.mkdtemp(prefix="raysparse-tune-")
    try:
        Tuner(
            tune.with_resources(trainable, resources),
            tune_config=TuneConfig(
                search_alg=relay,
                scheduler=scheduler,
                num_samples=num_samples,
                max_concurrent_trials=num_parallel,
                reuse_actors=True,
            ),
            run_config=RunConfig(
                name="tune",
                storage_path=notes,
                verbose=0,
                stop=_StopWhenOver(relay),
                failure_config=FailureConfig(max_failures=max_failures),
                checkpoint_config=CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            ),
        ).fit()
    finally:
        shutil.rmtree(notes, ignore_errors=True)
    relay.check()
