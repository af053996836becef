"""Whether evolution finds better networks than random search at as many evaluations, on the shared weights of a search.

python jobs/bench/searchers.py run --search RUN_FOLDER --folder FOLDER [--seeds 1 2 3] [--actors 2]
python jobs/bench/searchers.py table --folder FOLDER

RUN_FOLDER is that of a `raysparse search` whose supernet is trained; its cache, space, scoring and searcher are used.
`run` goes on where it was stopped: each search has a journal of its own. `table` prints the least score so far.
"""

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path

from raysparse.config import load_tree
from raysparse.data.dataset import Dataset
from raysparse.job import SearchJob, check_job, require_kind
from raysparse.launch.click_search import CACHE
from raysparse.launch.cluster import connect
from raysparse.launch.search_kind import kind_of
from raysparse.launch.trials import TrialDisplay, run_trials
from raysparse.search.journal import Entry, Journal, read_journal, resume
from raysparse.search.pareto import best_so_far
from raysparse.search.population import RandomSearchConfig, build_searcher
from raysparse.search.relaxation import DifferentiableConfig
from raysparse.train.run_folder import JOB

MARKS = (32, 64, 128, 192, 256, 320)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--search", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--actors", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.what == "run":
        if arguments.search is None:
            parser.error("run needs --search")
        run(arguments.folder, arguments.search, arguments.seeds, arguments.actors)
    print(table(arguments.folder))


def run(folder: Path, search: Path, seeds: list[int], actors: int) -> None:
    job = require_kind(SearchJob, check_job(load_tree(search / JOB), str(search)), str(search))
    job = job.model_copy(update={"trials": job.trials.model_copy(update={"num_actors": actors})})
    kind = kind_of(job, Dataset.open(job.data.path))
    space, objective = kind.space, kind.quality.objective
    connect(actors * job.trials.threads_per_actor)
    folder.mkdir(parents=True, exist_ok=True)
    own_searcher = job.resolved_searcher
    assert not isinstance(own_searcher, DifferentiableConfig), "a search by gradients has no population to compare"
    num_trials = build_searcher(own_searcher, space, job.seed).num_trials
    searchers = {job.searcher.kind: own_searcher, "random": RandomSearchConfig(num_trials=num_trials)}
    for seed in seeds:
        for name, config in searchers.items():
            own = job.model_copy(update={"searcher": config, "seed": seed})
            searcher = build_searcher(config, space, seed)
            header = {"searcher": config.model_dump(mode="json"), "seed": seed, "objective": objective}
            with Journal.open(folder / f"{name}-{seed}.jsonl", header) as journal:
                resume(searcher, journal)
                if searcher.ended is None:
                    # The seed is that of the draws; heads are tuned as in the search.
                    scored = own.model_copy(update={"seed": job.seed})
                    run_trials(scored, str(search / CACHE), searcher, journal, TrialDisplay(lambda entry: None, print))
                print(f"{name}, seed {seed}: {min(losses(journal.entries, objective)):.5f}", flush=True)


def losses(entries: list[Entry], objective: str) -> Iterator[float]:
    yield from (entry.objectives[objective] for entry in entries if entry.objectives is not None)


def table(folder: Path) -> str:
    rows = ["| searcher | seeds | " + " | ".join(f"{mark} trials" for mark in MARKS) + " |"]
    rows.append("|---" * (2 + len(MARKS)) + "|")
    names = sorted({path.name.partition("-")[0] for path in folder.glob("*.jsonl")}, reverse=True)
    for name in names:
        curves = [_curve(path) for path in sorted(folder.glob(f"{name}-*.jsonl"))]
        cells = [_cell([curve[mark - 1] for curve in curves if len(curve) >= mark]) for mark in MARKS]
        rows.append(f"| {name} | {len(curves)} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _curve(path: Path) -> list[float | None]:
    header, entries = read_journal(path)
    return best_so_far(list(losses(entries, header["objective"])))


def _cell(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.mean(known):.5f} ({min(known):.5f} to {max(known):.5f})" if known else ""


if __name__ == "__main__":
    main()
