"""How the price of a trial grows with the tables, and how trials spread over actors.

python jobs/bench/search_growth.py --folder FOLDER [--trials 32] [--parts tables actors sleepers] [KEY=VALUE ...]

Space and scoring of jobs/search-drift.yaml on a stream of three days of 20,000 rows. Tables of several sizes, one
actor; then several actors that score; then some that only sleep a second, on as many cores as there are: what Ray Tune
and the journal could feed. Actors' starts are not counted: the clock begins after half of the trials.
"""

import argparse
import time
from pathlib import Path
from statistics import median
from typing import Any

from raysparse.job import SearchJob, load_job, require_kind
from raysparse.launch import trials
from raysparse.launch.click_search import CACHE, ClickSearch
from raysparse.launch.cluster import connect
from raysparse.launch.data import ensure_data
from raysparse.launch.search import open_search
from raysparse.launch.trainer import Quiet, finish_run
from raysparse.search.journal import Journal
from raysparse.search.population import RandomSearchConfig, build_searcher

JOB = Path(__file__).parents[1] / "search-drift.yaml"
TABLE_ROWS = (2_000, 100_000, 1_000_000)
ACTORS = (1, 2, 4)
SLEEPERS = (4, 16)
SLEEPS_PER_ACTOR = 80
PARTS = ("tables", "actors", "sleepers")
SMALL = ("data.prepare.num_days=3", "data.prepare.rows_per_day=20_000", "trials.threads_per_actor=1")


class Lines:
    """Prints the messages of a run."""

    def message(self, text: str) -> None:
        """Print a line."""
        print(text, flush=True)


class SleepingActor(trials.ScoringActor):
    """An actor that scores nothing."""

    def _load(self, job: SearchJob, cache_url: str) -> None:
        pass

    def _score(self, choice: str) -> dict[str, Any]:
        """Sleep as long as a trial of a second would take."""
        time.sleep(1.0)
        return {"objectives": {"log_loss": 1.0, "macs": 1.0}, "seconds": 1.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    arguments = parser.parse_args()
    connect(max(SLEEPERS))
    print("| tables | actors | seconds of a trial, median | trials/min |\n|---|---|---|---|", flush=True)
    for rows in TABLE_ROWS if "tables" in arguments.parts else ():
        job = prepared(arguments.folder, rows, tuple(arguments.overrides))
        print(line(job, f"12 x {rows:,} rows", 1, arguments.trials), flush=True)
    job = prepared(arguments.folder, TABLE_ROWS[0], tuple(arguments.overrides))
    for actors in ACTORS if "actors" in arguments.parts else ():
        print(line(job, f"12 x {TABLE_ROWS[0]:,} rows", actors, arguments.trials), flush=True)
    trials.ScoringActor = SleepingActor
    for actors in SLEEPERS if "sleepers" in arguments.parts else ():
        print(line(job, "none: actors sleep", actors, SLEEPS_PER_ACTOR * actors), flush=True)


def prepared(folder: Path, rows: int, overrides: tuple[str, ...]) -> SearchJob:
    """Train the supernet on tables of a size, where that has not been done."""
    own = (f"data.prepare.rows_per_table={rows}", f"data.path={folder}/data-{rows}", f"run_folder={folder}/{rows}")
    job, run_folder = open_search(
        require_kind(SearchJob, load_job(JOB, (*SMALL, *own, *overrides)), str(JOB)), "resume"
    )
    dataset = ensure_data(job.data, Lines())
    finish_run(ClickSearch.of(job, dataset).supernet_job(run_folder), Quiet(lambda text: None))
    return job


def line(job: SearchJob, what: str, actors: int, num_trials: int) -> str:
    """Score random choices and return a row."""
    job = job.model_copy(update={"trials": job.trials.model_copy(update={"num_actors": actors})})
    dataset = ensure_data(job.data, Lines())
    searcher = build_searcher(RandomSearchConfig(num_trials=num_trials), ClickSearch.of(job, dataset).space, 0)
    path = Path(job.run_folder) / f"growth-{actors}.jsonl"
    path.unlink(missing_ok=True)
    ends: list[float] = []
    display = trials.TrialDisplay(lambda entry: ends.append(time.perf_counter()), print)
    with Journal.open(path, {}) as journal:
        trials.run_trials(job, f"{job.run_folder}/{CACHE}", searcher, journal, display)
        seconds = median(entry.seconds for entry in journal.entries)
    ends = sorted(ends)[num_trials // 2 :]
    per_minute = 60 * (len(ends) - 1) / (ends[-1] - ends[0])
    return f"| {what} | {actors} | {seconds:.2f} | {per_minute:.0f} |"


if __name__ == "__main__":
    main()
