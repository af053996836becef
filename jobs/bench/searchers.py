"""Whether evolution finds better networks than random search at as many evaluations, on the shared weights of a search.

python jobs/bench/searchers.py run --search RUN_FOLDER --folder FOLDER [--seeds 1 2 3] [--actors 2] [--only random]
                                   [--uniform-within 11500000]
python jobs/bench/searchers.py table --folder FOLDER [--budgets 350000 700000 1400000]

RUN_FOLDER is that of a `raysparse search` whose supernet is trained; its cache, space, scoring and searcher are used.
`run` goes on where it was stopped: each search has a journal of its own; of a space of encoders the networks whose
blocks are all alike are scored, too (`uniform`), all or those that take so many multiply-adds at most. `table` prints
the least score so far, and within budgets of multiply-adds. A journal of the search itself counts when it is copied
there as SEARCHER-SEED.jsonl; `run` then has to leave out its seed (`--only SEARCHER --seeds ...`), as it goes on with
journals of its own alone.
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
from raysparse.search.journal import Entry, Journal, read_journal
from raysparse.search.pareto import best_so_far
from raysparse.search.population import ListedSearch, RandomSearchConfig, build_searcher
from raysparse.search.quality import QUALITIES
from raysparse.search.relaxation import DifferentiableConfig
from raysparse.search.replay import Replay
from raysparse.search.sasrec_space import SASRecSpace
from raysparse.train.run_folder import JOB

UNIFORM = "uniform"
MARKS = (32, 64, 128, 192, 256, 320)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--search", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--only", nargs="+", help="searchers to run; all where it is left out")
    parser.add_argument("--uniform-within", type=int)
    parser.add_argument("--budgets", nargs="+", type=int, default=[])
    arguments = parser.parse_args()
    if arguments.what == "run":
        if arguments.search is None:
            parser.error("run needs --search")
        runs = (arguments.seeds, arguments.actors, arguments.only)
        run(arguments.folder, arguments.search, *runs, arguments.uniform_within)
    print(table(arguments.folder))
    if arguments.budgets:
        print("\n" + budget_table(arguments.folder, arguments.budgets))


def run(
    folder: Path, search: Path, seeds: list[int], actors: int, only: list[str] | None, uniform_within: int | None
) -> None:
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
    runs = [
        (f"{name}-{seed}", config.model_dump(mode="json"), seed, build_searcher(config, space, seed))
        for seed in seeds
        for name, config in searchers.items()
    ]
    if isinstance(space, SASRecSpace):
        alike = [one for one in space.uniform() if uniform_within is None or space.cost(one).macs <= uniform_within]
        runs.append((f"{UNIFORM}-1", {"kind": UNIFORM, "within": uniform_within}, 1, ListedSearch(space, alike)))
    for name, config, seed, fresh in runs:
        if only is not None and name.rpartition("-")[0] not in only:
            continue
        header = {"searcher": config, "seed": seed, "objective": objective}
        with Journal.open(folder / f"{name}.jsonl", header) as journal:
            searcher = Replay(fresh, journal)
            if searcher.ended is None:
                # The seed is that of the draws; networks are scored as in the search.
                run_trials(job, str(search / CACHE), searcher, journal, TrialDisplay(lambda entry: None, print))
            print(f"{name}: {min(losses(journal.entries, objective)):.5f}", flush=True)


def losses(entries: list[Entry], objective: str) -> Iterator[float]:
    yield from (entry.objectives[objective] for entry in entries if entry.objectives is not None)


def losses_within(entries: list[Entry], objective: str, budget: int) -> list[float]:
    return list(losses([one for one in entries if one.objectives and one.objectives["macs"] <= budget], objective))


def table(folder: Path) -> str:
    rows = ["| searcher | seeds | " + " | ".join(f"{mark} trials" for mark in MARKS) + " |"]
    rows.append("|---" * (2 + len(MARKS)) + "|")
    for name, paths in journals_of(folder).items():
        curves = [_curve(path) for path in paths]
        cells = [_cell([curve[mark - 1] for curve in curves if len(curve) >= mark]) for mark in MARKS]
        rows.append(f"| {name} | {len(curves)} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def budget_table(folder: Path, budgets: list[int]) -> str:
    rows = ["| searcher | seeds | trials | " + " | ".join(f"at most {budget:,} MACs" for budget in budgets) + " |"]
    rows.append("|---" * (3 + len(budgets)) + "|")
    for name, paths in journals_of(folder).items():
        read = [read_journal(path)[1] for path in paths]
        cells = [
            _cell([min(losses_within(entries, objective_of(entries), budget), default=None) for entries in read])
            for budget in budgets
        ]
        rows.append(f"| {name} | {len(paths)} | {max(map(len, read))} | {' | '.join(cells)} |")
    return "\n".join(rows)


def journals_of(folder: Path) -> dict[str, list[Path]]:
    names = sorted({path.name.rpartition("-")[0] for path in folder.glob("*.jsonl")}, reverse=True)
    return {name: sorted(folder.glob(f"{name}-*.jsonl")) for name in names}


def objective_of(entries: list[Entry]) -> str:
    names = {name for entry in entries for name in entry.objectives or ()}
    return next(quality.objective for quality in QUALITIES.values() if quality.objective in names)


def _curve(path: Path) -> list[float | None]:
    _, entries = read_journal(path)
    return best_so_far(list(losses(entries, objective_of(entries))))


def _cell(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.mean(known):.5f} ({min(known):.5f} to {max(known):.5f})" if known else ""


if __name__ == "__main__":
    main()
