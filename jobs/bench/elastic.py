"""How far the shared weights of a sequence search can be trusted: networks trained alone beside their scores.

python jobs/bench/elastic.py run --search RUN_FOLDER --folder FOLDER [--count 20] [--budgets 350000 700000 1400000]
                                 [--random JOURNAL ...] [--seeds 1] [--parallel 2]
python jobs/bench/elastic.py table --folder FOLDER

RUN_FOLDER is that of a `raysparse search` of a `sasrec` space. `run` trains alone, as its finalists are: `count` drawn
networks spread evenly over the costs, and for each budget the best network by score of the search's journal, of each
journal of a random search on the same shared weights, after as many scores as the search has (`python
jobs/bench/searchers.py run --only random` leaves them as random-SEED.jsonl), and the best of those whose blocks are all
alike. It goes on where it was stopped. `table` prints rank correlations, within thirds of the costs as well, and what
is kept of each budget: means over picks and seeds, and the median of the test.
"""

import argparse
import json
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch

from raysparse.config import load_tree
from raysparse.cost.encoder import encoder_macs
from raysparse.data.dataset import Dataset
from raysparse.job import SearchJob, check_job, dump_job, require_kind
from raysparse.launch.click_search import CACHE
from raysparse.launch.entrants import Contender, Entrant
from raysparse.launch.sequence_search import SequenceSearch
from raysparse.models.sasrec.config import SASRecConfig
from raysparse.report.search_run import JOURNAL
from raysparse.search.finalists import pick_finalists
from raysparse.search.journal import Entry, read_journal
from raysparse.search.ranking import kendall_interval, kendall_tau
from raysparse.search.sasrec_space import SASRecSpace, text_of
from raysparse.train.run_folder import JOB, RunFolder

PLAN = "plan.jsonl"
DRAWS_PER_NETWORK = 50


@dataclass(frozen=True)
class Candidate:
    """A network to train alone."""

    group: str
    choice: SASRecConfig
    score: float
    """NDCG@10 in the supernet."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--search", type=Path)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--budgets", nargs="*", type=int, default=[])
    parser.add_argument("--random", nargs="*", type=Path, default=[])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--parallel", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.what == "run":
        if arguments.search is None:
            parser.error("run needs --search")
        run(arguments)
    print(table(arguments.folder))


def run(arguments: argparse.Namespace) -> None:
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    job = require_kind(SearchJob, check_job(load_tree(arguments.search / JOB), "the search"), "the search")
    kind = SequenceSearch(job, Dataset.open(job.data.path))
    candidates = candidates_of(kind, arguments)
    rows: list[dict[str, Any]] = []
    jobs: list[Path] = []
    for number, candidate in enumerate(candidates):
        for seed in arguments.seeds if candidate.group != "drawn" else arguments.seeds[:1]:
            name = f"{number:02d}-{seed}"
            rows.append(row_of(candidate, name, seed))
            jobs.append(write_job(kind, candidate, seed, folder, name))
    (folder / PLAN).write_text("".join(json.dumps(row) + "\n" for row in rows))
    with ThreadPoolExecutor(arguments.parallel) as pool:
        list(pool.map(train, jobs))


def candidates_of(kind: SequenceSearch, arguments: argparse.Namespace) -> list[Candidate]:
    scorer = kind.scorer(str(arguments.search / CACHE), torch.device("cpu"))

    def scored(group: str, choice: SASRecConfig) -> Candidate:
        return Candidate(group, choice, 1.0 - scorer.score(choice)[kind.quality.objective])

    candidates = [scored("drawn", choice) for choice in spread(kind.space, arguments.count)]
    _, entries = read_journal(arguments.search / JOURNAL)
    searches = [("search", entries), *(("random", scored_first(path, len(entries))) for path in arguments.random)]
    uniform = [scored("", choice) for choice in kind.space.uniform()] if arguments.budgets else []
    for budget in arguments.budgets:
        for name, journal in searches:
            for entry in pick_finalists(journal, kind.quality.objective, "budgets", 1, [budget]):
                candidates.append(scored(f"{name} {budget}", kind.space.parse(entry.choice)))
        within = [one for one in uniform if macs_of(one.choice) <= budget]
        best = max(within, key=lambda one: one.score)
        candidates.append(Candidate(f"uniform {budget}", best.choice, best.score))
    return candidates


def scored_first(journal: Path, count: int) -> list[Entry]:
    """The first entries of a random search, as many as another search has."""
    _, entries = read_journal(journal)
    if len(entries) < count:
        raise SystemExit(f"{journal} has {len(entries)} scores, and the search {count}: go on with the random search")
    return entries[:count]


def spread(space: SASRecSpace, count: int) -> list[SASRecConfig]:
    """Draw networks, and take some of them at even distances in the order of their costs."""
    samples = (space.sample(Random(f"elastic/{number}")) for number in range(DRAWS_PER_NETWORK * count))
    drawn = {space.key(choice): choice for choice in samples}
    ordered = sorted(drawn.values(), key=lambda choice: (macs_of(choice), space.key(choice)))
    return [ordered[int((place + 0.5) * len(ordered) / count)] for place in range(count)]


def macs_of(choice: SASRecConfig) -> int:
    return encoder_macs(choice, choice.max_length)


def row_of(candidate: Candidate, name: str, seed: int) -> dict[str, Any]:
    facts = {"key": text_of(candidate.choice), "macs": macs_of(candidate.choice), "score": candidate.score}
    return {"group": candidate.group, "name": name, "seed": seed, **facts}


def write_job(kind: SequenceSearch, candidate: Candidate, seed: int, folder: Path, name: str) -> Path:
    contender = Contender("baseline", name, candidate.choice, kind.space.cost(candidate.choice), {})
    rate = kind.job.finalists.learning_rates[0]
    entrant = Entrant(contender, rate, str(folder.absolute() / name))
    job = kind.train_job(entrant, RunFolder(str(folder))).model_copy(update={"seed": seed})
    path = folder / f"{name}.yaml"
    path.write_text(dump_job(job))
    return path


def train(path: Path) -> None:
    if (path.with_suffix("") / "summary.json").exists():
        return
    with path.with_suffix(".log").open("w") as log:
        command = [sys.executable, "-m", "raysparse", "train", str(path), "--resume"]
        subprocess.run(command, check=True, stdout=log, stderr=log)
    print(f"{path.stem} done", flush=True)


def finished(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / PLAN).read_text().splitlines()]
    for row in rows:
        path = folder / row["name"] / "summary.json"
        if path.exists():
            arms = json.loads(path.read_text())["arms"]
            row |= {"validation": arms["trained"]["ndcg@10"], "test": arms["best"]["test"]["ndcg@10"]}
            row["test_hr"] = arms["best"]["test"]["hr@10"]
    return [row for row in rows if "validation" in row]


def table(folder: Path) -> str:
    rows = finished(folder)
    drawn = sorted((row for row in rows if row["group"] == "drawn"), key=lambda row: row["macs"])
    third = max(1, -(-len(drawn) // 3))
    bands = [("all", drawn)]
    bands += [(f"third {number + 1}", drawn[number * third : (number + 1) * third]) for number in range(3)]
    lines = [
        "| networks | MACs | count | Kendall's tau of score and validation | with MACs alone |",
        "|---|---|---|---|---|",
    ]
    lines += [band_line(name, band) for name, band in bands if len(band) > 2]
    groups = list(dict.fromkeys(row["group"] for row in rows if row["group"] != "drawn"))
    lines += [
        "",
        "| network | MACs | runs | score | validation NDCG@10 | test NDCG@10 | test HR@10 | median test NDCG@10 |",
        "|---" * 8 + "|",
    ]
    for group in groups:
        of_group = [row for row in rows if row["group"] == group]
        cells = [f"{mean(of_group, name):.4f}" for name in ("score", "validation", "test", "test_hr")]
        cells.append(f"{statistics.median(row['test'] for row in of_group):.4f}")
        keys = list(dict.fromkeys(row["key"] for row in of_group))
        title = f"{group}: {keys[0] if len(keys) == 1 else f'{len(keys)} networks'}"
        lines.append(f"| {title} | {mean(of_group, 'macs'):,.0f} | {len(of_group)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def band_line(name: str, rows: list[dict[str, Any]]) -> str:
    scores, alone, macs = ([row[key] for row in rows] for key in ("score", "validation", "macs"))
    low, high = kendall_interval(scores, alone, 0)
    tau, of_macs = kendall_tau(scores, alone), kendall_tau(macs, alone)
    return (
        f"| {name} | {macs[0]:,} to {macs[-1]:,} | {len(rows)} | {tau:.2f} ({low:.2f} to {high:.2f}) | {of_macs:.2f} |"
    )


def mean(rows: list[dict[str, Any]], key: str) -> float:
    return statistics.mean(row[key] for row in rows)


if __name__ == "__main__":
    main()
