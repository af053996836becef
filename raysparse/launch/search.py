"""Runs a search job on a Ray cluster, from the driver: supernet, trials, finalists and baselines."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from raysparse.config import Tree, parse_yaml
from raysparse.cost.record import cost_of
from raysparse.data.dataset import Dataset
from raysparse.errors import CheckpointError, ConfigError, RaySparseError
from raysparse.job import SearchJob, check_job, dump_job, refuse_changes, require_kind
from raysparse.launch.click_search import CACHE
from raysparse.launch.cluster import connect, shortage_for_trials
from raysparse.launch.contest import compete
from raysparse.launch.data import ensure_data
from raysparse.launch.entrants import Contender
from raysparse.launch.ray_data import quiet_ray_data
from raysparse.launch.run_facts import run_facts
from raysparse.launch.search_kind import SearchKind, kind_of
from raysparse.launch.tasks import run_tasks
from raysparse.launch.trainer import Quiet, RunMode, absolute, finish_run
from raysparse.launch.trials import TrialDisplay, run_trials
from raysparse.launch.tune_trials import build_scheduler
from raysparse.models import build_model
from raysparse.models.nasrec.choice import NASRecConfig
from raysparse.report.search_run import JOURNAL, RESULTS, SUPERNET
from raysparse.search.finalists import pick_finalists, smallest_scored
from raysparse.search.journal import Entry, Journal
from raysparse.search.pareto import best_so_far
from raysparse.search.population import GenerationalSearch, ListedSearch, build_searcher
from raysparse.search.pressure import DualPressureConfig
from raysparse.search.relaxation import DifferentiableConfig, Found
from raysparse.search.replay import Replay
from raysparse.search.supernet_cache import MANIFEST
from raysparse.train.run_folder import SUMMARY, RunFolder

PHASES = "phases.json"
RELAXED = "relaxed.json"
"""What a search by gradients has found, and its steps."""

Result = TypeVar("Result")


class SearchDisplay(Protocol):
    """Shows a search to a person."""

    def phase(self, text: str) -> None:
        """Say what begins."""
        ...

    def trial(self, done: int, total: int, best: float | None, failed: int) -> None:
        """Show how far the trials are, and the best score so far."""
        ...

    def run_done(self, name: str, validation: float | None, test: float | None, seconds: float) -> None:
        """Show a finished run: its scores and how long it took."""
        ...

    def message(self, text: str) -> None:
        """Show a line."""
        ...


class Phases:
    """How long each phase took, in all processes that worked on the search; what a killed one was at is not counted."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self.seconds: dict[str, float] = json.loads(folder.read(PHASES)) if folder.exists(PHASES) else {}

    def measure(self, name: str, work: Callable[[], Result]) -> Result:
        """Do a phase's work and note its time."""
        started = time.perf_counter()
        result = work()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
        self._folder.write(PHASES, json.dumps(self.seconds) + "\n")
        return result


def open_search(job: SearchJob, mode: RunMode) -> tuple[SearchJob, RunFolder]:
    """Claim the job's run folder and write its resolved job there; driver.

    Returns the job with absolute paths. ConfigError where the folder exists and `mode` is `new`, where it holds
    something else, or where a resumed search was made by another job.
    """
    job = job.model_copy(
        update={
            "run_folder": absolute(job.run_folder),
            "data": job.data.model_copy(update={"path": absolute(job.data.path)}),
        }
    )
    if "://" in job.run_folder:
        raise ConfigError(
            f"run_folder: found {job.run_folder}; allowed: a folder that all machines reach, since the journal is "
            "appended to and the cache is mapped into memory"
        )
    folder = RunFolder(job.run_folder)
    folder.open(dump_job(job), mode, lambda text, origin: _refuse_changes(text, origin, job))
    return job, folder


def _refuse_changes(text: str, origin: str, job: SearchJob) -> None:
    refuse_changes(require_kind(SearchJob, check_job(parse_yaml(text, origin), origin), origin), job)


def search(job: SearchJob, folder: RunFolder, display: SearchDisplay) -> tuple[Tree, Tree]:
    """Run a job that `open_search` has given a folder, and return its results and its summary; driver.

    What an earlier, killed process has done is taken over: the supernet's checkpoints, the cache, every journaled
    score, and finished runs. Raises what a run raises, CheckpointError where cache and journal belong to another
    supernet, RunTakenError once another process has begun the search anew.
    """
    started = time.time()
    folder = folder.held()
    per_run = job.scaling.num_workers * job.scaling.threads_per_worker
    connect(max(per_run * job.finalists.num_parallel, job.trials.num_actors * job.trials.threads_per_actor))
    dataset = ensure_data(job.data, display)
    kind = kind_of(job, dataset)
    build_scheduler(job.finalists.asha, [], kind.num_days_before_test, "finalists.asha")
    lack = shortage_for_trials(job.trials.threads_per_actor, job.trials.gpus_per_actor)
    if lack is not None:
        display.message(lack)
    _refuse_unreachable_budgets(job, kind)
    phases = Phases(folder)
    supernet = phases.measure("supernet", lambda: _train_supernet(kind, folder, display))
    entries = phases.measure("trials", lambda: _score_choices(job, kind, supernet, folder, display))
    _say_what_no_network_keeps_to(job, entries, display)
    display.phase("training finalists and baselines alone")
    contenders = [*finalists_of(job, kind, entries), *baselines_of(job, dataset)]
    rows, without_score = phases.measure("finalists", lambda: compete(job, contenders, kind, folder, display))
    results = {"metric": kind.quality.name, **kind.facts(), "rows": rows, "without_score": without_score}
    folder.write(RESULTS, json.dumps(results, indent=1) + "\n")
    summary = _summary(job, entries, phases, started)
    folder.write(SUMMARY, json.dumps(summary, indent=1) + "\n")
    return results, summary


def _refuse_unreachable_budgets(job: SearchJob, kind: SearchKind) -> None:
    least = kind.space.cost(kind.space.cheapest).macs
    budgets = {"finalists.budgets": job.finalists.budgets}
    if isinstance(job.searcher, DifferentiableConfig) and isinstance(job.searcher.constraint, DualPressureConfig):
        budgets["searcher.constraint.budgets"] = job.searcher.constraint.budgets
    for key, wanted in budgets.items():
        low = [f"{budget:,}" for budget in wanted if budget < least]
        if low:
            raise ConfigError(
                f"{key}: found {', '.join(low)}; the smallest network of the space takes {least:,} multiply-adds. "
                f"Allowed: {least:,} or more"
            )


def _say_what_no_network_keeps_to(job: SearchJob, entries: list[Entry], display: SearchDisplay) -> None:
    least = smallest_scored(entries)
    for budget in job.finalists.budgets:
        if least is not None and budget < least:
            display.message(
                f"finalists.budgets: no network within {budget:,} multiply-adds has been scored; the smallest scored "
                f"one takes {least:,.0f}"
            )


def _train_supernet(kind: SearchKind, folder: RunFolder, display: SearchDisplay) -> str:
    """Train the shared weights, and keep what trials read; the digest of the weights."""
    if folder.exists(f"{SUPERNET}/{SUMMARY}") and not folder.exists(f"{CACHE}/{MANIFEST}"):
        # Trained, and its cache is gone: the run goes on from its last checkpoint, which has only the cache to write.
        folder.filesystem.rm(f"{folder.root}/{SUPERNET}/{SUMMARY}")
    display.phase("training the supernet")
    finish_run(kind.supernet_job(folder), Quiet(display.message))
    return kind.open_cache(folder.url(CACHE))


def _score_choices(
    job: SearchJob, kind: SearchKind, supernet: str, folder: RunFolder, display: SearchDisplay
) -> list[Entry]:
    """Have the population's choices scored, and return all scores there are."""
    fresh = _searcher_of(job, kind, folder, display)
    header = {
        "supernet": supernet,
        "space": job.space.model_dump(mode="json"),
        "scoring": job.scoring.model_dump(mode="json"),
        "ranking": job.ranking.model_dump(mode="json"),
        "searcher": job.resolved_searcher.model_dump(mode="json"),
        "seed": job.seed,
    }
    with Journal.open(Path(folder.root) / JOURNAL, header) as journal:
        searcher = Replay(fresh, journal)
        if searcher.num_replayed:
            display.message(f"{searcher.num_replayed} scored choices are taken from {JOURNAL}")

        def show(_: Entry | None = None) -> None:
            folder.require_ownership()  # the lock is that of a file that is gone where another process began anew
            quality = kind.quality
            losses = [entry.objectives[quality.objective] if entry.objectives else None for entry in journal.entries]
            best = best_so_far(losses)[-1] if losses else None
            score = None if best is None else quality.loss_of(best)
            display.trial(len(losses), searcher.num_trials, score, losses.count(None))

        display.phase(f"scoring {searcher.num_trials} choices with {job.trials.num_actors} actors")
        show()
        if searcher.ended is None:
            run_trials(job, folder.url(CACHE), searcher, journal, TrialDisplay(show, display.message))
        if searcher.ended is not None and len(journal.entries) < searcher.num_trials:
            display.message(searcher.ended)
        return list(journal.entries)


def _searcher_of(
    job: SearchJob, kind: SearchKind, folder: RunFolder, display: SearchDisplay
) -> GenerationalSearch[Any]:
    """Build what proposes choices; of a search by gradients, what it has found, from an earlier process or anew."""
    config = job.resolved_searcher
    if not isinstance(config, DifferentiableConfig):
        return build_searcher(config, kind.space, job.seed)
    if not folder.exists(RELAXED):
        display.phase(f"searching {config.num_networks} networks by gradients, {config.num_steps} steps each")
        with quiet_ray_data():
            (found,) = run_tasks(_Relaxed(job, kind), [folder.url(CACHE)])
        tree = [
            {"choice": one.choice.model_dump(mode="json"), "expected_macs": one.expected_macs, "trace": one.trace}
            for one in found
        ]
        folder.write(RELAXED, json.dumps(tree) + "\n")
    choices = [kind.space.parse(one["choice"]) for one in json.loads(folder.read(RELAXED))]
    return ListedSearch(kind.space, choices)


@dataclass(frozen=True)
class _Relaxed:
    """The search by gradients, in a worker process."""

    job: SearchJob
    kind: SearchKind

    def __call__(self, cache: str) -> list[Found]:
        torch.set_num_threads(self.job.trials.threads_per_actor)
        return self.kind.relaxed(cache)


def finalists_of(job: SearchJob, kind: SearchKind, entries: list[Entry]) -> list[Contender]:
    """Return the best scored choices; CheckpointError where no trial has a score."""
    space, quality = kind.space, kind.quality
    own = job.finalists
    picked = pick_finalists(entries, quality.objective, own.rank_by, own.count, own.budgets)
    if not picked:
        raise _nothing_picked(job, entries)
    contenders: list[Contender] = []
    for rank, entry in enumerate(picked, start=1):
        drawn = space.parse(entry.choice)
        choice = space.canonical(drawn)
        facts = {
            "rank": rank,
            "trial": entry.number,
            "key": entry.key,
            "choice": choice.model_dump(mode="json"),
            "drawn": drawn.model_dump(mode="json"),
            f"trial_{quality.name}": quality.loss_of((entry.objectives or {})[quality.objective]),
        }
        inherits = own.weights == "inherited" and isinstance(drawn, NASRecConfig)
        contenders.append(
            Contender("finalist", str(rank), choice, space.cost(choice), facts, drawn if inherits else None)
        )
    return contenders


def _nothing_picked(job: SearchJob, entries: list[Entry]) -> RaySparseError:
    least = smallest_scored(entries)
    if least is None:
        return CheckpointError(f"none of {len(entries)} trials has a score; the first error: {_first_error(entries)}")
    found = ", ".join(f"{budget:,}" for budget in job.finalists.budgets)
    return ConfigError(
        f"finalists.budgets: found {found}; the smallest network "
        f"that was scored takes {least:,.0f} multiply-adds. Allowed: one of that or more, with --resume"
    )


def _first_error(entries: list[Entry]) -> str | None:
    return next((entry.error for entry in entries if entry.error is not None), None)


def baselines_of(job: SearchJob, dataset: Dataset) -> list[Contender]:
    """Return the job's hand-made models."""
    none: dict[str, Any] = dict.fromkeys(("rank", "trial", "key", "choice", "drawn"))
    contenders: list[Contender] = []
    for number, model in enumerate(job.baselines):
        with torch.device("cpu"):
            cost = cost_of(build_model(model, dataset.schema, job.seed), dataset.schema)
        same = sum(other.kind == model.kind for other in job.baselines[:number])
        contenders.append(Contender("baseline", model.kind + (f"-{same + 1}" if same else ""), model, cost, none))
    return contenders


def _summary(job: SearchJob, entries: list[Entry], phases: Phases, started: float) -> Tree:
    scoring = sum(entry.seconds for entry in entries)
    # Of a search by gradients one trial may be all there is: no rate.
    pace = 60.0 * len(entries) / scoring * job.trials.num_actors if scoring and len(entries) > 1 else None
    return {
        **run_facts(job.name, started),
        "num_trials": len(entries),
        "num_failed": sum(entry.error is not None for entry in entries),
        "trials_per_minute": pace,
        "phases": phases.seconds,
    }
