"""Scores the choices of a search as Ray Tune trials, in actors that are reused."""

import json
import logging
import math
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import CheckpointConfig, FailureConfig, RunConfig, Trainable, TuneConfig, Tuner
from ray.tune.search import Searcher as TuneSearcher

from raysparse.config import Tree
from raysparse.data.dataset import Dataset
from raysparse.errors import CheckpointError, RaySparseError, WorkerError
from raysparse.job import SearchJob
from raysparse.models.nasrec.choice import NASRecConfig
from raysparse.search.ctr_space import CTRSpace
from raysparse.search.journal import Entry, Journal
from raysparse.search.population import Proposal, Searcher

_OUTCOME = "outcome"
_METRIC = "log_loss"
_LOST_ACTORS = 3
"""Actors that a trial may lose, and is scored again: a dead machine is no fault of the choice."""


@dataclass(frozen=True)
class TrialDisplay:
    """Shows trials to a person."""

    scored: Callable[[Entry], None]
    """Called with each result."""
    message: Callable[[str], None]
    """Called with what else is worth a line."""


def run_trials(
    job: SearchJob, cache: str, searcher: Searcher[NASRecConfig], journal: Journal, display: TrialDisplay
) -> None:
    """Score what a searcher proposes until it ends; driver, connected to Ray.

    Every result stands in the journal before the searcher learns of it. What an actor raised on loading is raised
    again; a choice that cannot be scored, or whose actors die again and again, is an error in the journal.
    """
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # Tune's own tables; the search has a display of its own
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    relay = _AskAndTell(searcher, journal, display)
    gpus = job.trials.gpus_per_actor
    resources: dict[str, float] = {"cpu": job.trials.threads_per_actor} | ({"gpu": gpus} if gpus else {})
    arguments = {"job": job.model_dump(mode="json"), "cache": cache}
    # Tune keeps notes of its own, which nobody reads: the journal is the search's only memory.
    notes = tempfile.mkdtemp(prefix="raysparse-trials-")
    try:
        Tuner(
            tune.with_resources(tune.with_parameters(ScoringTrial, arguments=arguments), resources),
            tune_config=TuneConfig(
                search_alg=relay, num_samples=-1, reuse_actors=True, max_concurrent_trials=job.trials.num_actors
            ),
            run_config=RunConfig(
                name="trials",
                storage_path=notes,
                verbose=0,
                failure_config=FailureConfig(max_failures=0),
                checkpoint_config=CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            ),
        ).fit()
    finally:
        shutil.rmtree(notes, ignore_errors=True)
    relay.check()


class ScoringTrial(Trainable):
    """An actor with a scorer; each trial is one step of it."""

    def setup(self, config: Tree, arguments: Tree | None = None) -> None:
        """Map the cache and load the shared weights, once for all trials of the actor."""
        assert arguments is not None
        self._choice = config
        self._fault: str | None = None
        try:
            self._load(SearchJob.model_validate_json(json.dumps(arguments["job"])), arguments["cache"])
        except RaySparseError as error:
            # Ray would try again and then lose the text: it is reported as what the trial came to.
            self._fault = str(error)

    def _load(self, job: SearchJob, cache_url: str) -> None:
        import torch

        from raysparse.search.feature_cache import FeatureCache
        from raysparse.search.scoring import Scorer, objectives_of

        torch.set_num_threads(job.trials.threads_per_actor)
        device = torch.device("cuda" if job.trials.gpus_per_actor else "cpu")
        self._space = CTRSpace(job.space, Dataset.open(job.data.path).schema)
        self._scorer = Scorer(FeatureCache.open(cache_url), self._space, job.scoring, job.seed, device)
        self._objectives = objectives_of(job.searcher)

    def reset_config(self, new_config: Tree) -> bool:
        """Take another choice."""
        self._choice = new_config
        return True

    def step(self) -> Tree:
        """Score the choice."""
        if self._fault is not None:
            return result_of({"fault": self._fault})
        started = time.perf_counter()
        try:
            choice = self._space.parse(json.loads(self._choice["choice"]))
            outcome: Tree = {"objectives": self._scorer.score(choice, self._objectives)}
        except (RuntimeError, ValueError, ArithmeticError, RaySparseError) as error:
            outcome = {"error": f"{type(error).__name__}: {error}"}
        outcome["seconds"] = time.perf_counter() - started
        return result_of(outcome)


def result_of(outcome: Tree) -> Tree:
    """Return what Tune is told of a trial."""
    # As text: a float keeps all its digits, whatever Tune does to results. Tune insists on the metric that it was told.
    return {_OUTCOME: json.dumps(outcome), _METRIC: outcome.get("objectives", {}).get(_METRIC, math.nan), "done": True}


class _AskAndTell(TuneSearcher):
    """Lets Tune ask the population; driver."""

    def __init__(self, searcher: Searcher[NASRecConfig], journal: Journal, display: TrialDisplay) -> None:
        super().__init__(metric=_METRIC, mode="min")
        self._searcher = searcher
        self._journal = journal
        self._display = display
        self._lost: Counter[int] = Counter()
        self._open: dict[str, Proposal[NASRecConfig]] = {}
        self._fault: BaseException | None = None

    def __getstate__(self) -> Tree:
        # Tune pickles what it is given, to restore it after a kill: here the journal does that.
        return {}

    def set_search_properties(self, metric: Any, mode: Any, config: Tree, **spec: Any) -> bool:
        """Tune's own goal; the population has its own."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """Hand out the next choice; None while the population waits for results."""
        if self._fault is not None or self._searcher.ended is not None:
            return TuneSearcher.FINISHED
        proposals = self._searcher.ask(1)
        if not proposals:
            return TuneSearcher.FINISHED if self._searcher.ended is not None else None
        self._open[trial_id] = proposals[0]
        return {"choice": proposals[0].choice.model_dump_json()}

    def on_trial_complete(self, trial_id: str, result: Tree | None = None, error: bool = False) -> None:
        """Write the result down, then tell the population."""
        proposal = self._open.pop(trial_id)
        if result is not None and _OUTCOME in result and not error:
            outcome: Tree = json.loads(result[_OUTCOME])
        elif self._lost[proposal.number] < _LOST_ACTORS:
            self._lost[proposal.number] += 1
            self._searcher.release(proposal)
            self._display.message(f"the actor that scored trial {proposal.number} died; the trial goes to another one")
            return
        else:
            outcome = {"error": f"{_LOST_ACTORS + 1} actors died on it", "seconds": 0.0}
        try:
            if "fault" in outcome:
                raise CheckpointError(outcome["fault"])
            entry = self._journal.record(
                proposal, outcome["objectives"] if "objectives" in outcome else outcome["error"], outcome["seconds"]
            )
            self._searcher.tell(proposal, entry.objectives)
            self._display.scored(entry)
        except BaseException as fault:
            # Tune would log it and go on; it is raised when Tune has ended, which it does at the next `suggest`.
            self._fault = self._fault or fault

    def check(self) -> None:
        """Raise what went wrong in Tune's hands, or where Tune ended before the population did."""
        if self._fault is not None:
            raise self._fault
        if self._searcher.ended is None:
            raise WorkerError(
                f"Ray Tune ended after {len(self._journal.entries)} of {self._searcher.num_trials} trials; "
                "go on with --resume"
            )

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the journal holds it all."""
        Path(checkpoint_path).write_text("")

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing, see `save`."""
