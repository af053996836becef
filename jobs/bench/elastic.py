"""How far the shared weights of a sequence search can be trusted: networks trained alone beside their scores.

python jobs/bench/elastic.py run --search RUN_FOLDER --folder FOLDER --results FILE.csv [--count 20]
                                 [--budgets 350000 700000 1400000] [--random JOURNAL ...] [--seeds 1] [--parallel 2]
python jobs/bench/elastic.py table --search RUN_FOLDER --results FILE.csv [--count 20] [--budgets ...] [--random ...]

RUN_FOLDER is that of a `raysparse search` of a `sasrec` space. `run` trains alone, as its finalists are: `count` drawn
networks spread evenly over the costs, and for each budget the best network by score of the search's journal, of each
journal of a random search on the same shared weights, after as many scores as the search has (`python
jobs/bench/searchers.py run --only random` leaves them as random-SEED.jsonl), and the best of those whose blocks are all
alike. What it has trained stands in FILE.csv, whichever search it was for, and is not trained again; the drawn networks
follow from the space alone, so that they can be trained before a search has ended. `table` prints rank correlations,
within thirds of the costs as well, and what is kept of each budget: means over picks and seeds, and the median of the
test.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from re import sub
from threading import Lock
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
from raysparse.search.sequence_scoring import SequenceScorer
from raysparse.train.run_folder import JOB, RunFolder

COLUMNS = ("network", "macs", "seed", "validation", "test", "test_hr")
DRAWN = "drawn"
DRAWS_PER_NETWORK = 50

Trained = dict[tuple[str, int], dict[str, float]]
"""What networks came to, by their text and the seed."""


@dataclass(frozen=True)
class Candidate:
    """A network to train alone."""

    group: str
    choice: SASRecConfig

    @property
    def key(self) -> str:
        """Its name in the results."""
        return text_of(self.choice)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("--search", required=True, type=Path)
    parser.add_argument("--results", required=True, type=Path)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--budgets", nargs="*", type=int, default=[])
    parser.add_argument("--random", nargs="*", type=Path, default=[])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--parallel", type=int, default=2)
    arguments = parser.parse_args()
    job = require_kind(SearchJob, check_job(load_tree(arguments.search / JOB), "the search"), "the search")
    kind = SequenceSearch(job, Dataset.open(job.data.path))
    scorer = kind.scorer(str(arguments.search / CACHE), torch.device("cpu")) if arguments.budgets else None
    candidates = candidates_of(kind, scorer, arguments)
    if arguments.what == "run":
        if arguments.folder is None:
            parser.error("run needs --folder")
        run(kind, candidates, arguments)
    else:
        scorer = scorer or kind.scorer(str(arguments.search / CACHE), torch.device("cpu"))
        print(table(kind, candidates, scorer, trained(arguments.results)))


def run(kind: SequenceSearch, candidates: list[Candidate], arguments: argparse.Namespace) -> None:
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    if not arguments.results.exists():
        arguments.results.write_text(",".join(COLUMNS) + "\n")
    done = trained(arguments.results)
    wanted = {
        (one.key, seed): one
        for one in candidates
        for seed in (arguments.seeds[:1] if one.group == DRAWN else arguments.seeds)
    }
    writing = Lock()

    def train_one(of_run: tuple[tuple[str, int], Candidate]) -> None:
        (key, seed), candidate = of_run
        values = train(write_job(kind, candidate, seed, folder))
        with writing, arguments.results.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow([key, macs_of(candidate.choice), seed, *values])
        print(f"{key}, seed {seed}: {', '.join(values)}", flush=True)

    with ThreadPoolExecutor(arguments.parallel) as pool:
        list(pool.map(train_one, (pair for pair in wanted.items() if pair[0] not in done)))


def trained(results: Path) -> Trained:
    with results.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        (row["network"], int(row["seed"])): {name: float(row[name]) for name in ("validation", "test", "test_hr")}
        for row in rows
    }


def candidates_of(
    kind: SequenceSearch, scorer: SequenceScorer | None, arguments: argparse.Namespace
) -> list[Candidate]:
    candidates = [Candidate(DRAWN, choice) for choice in spread(kind.space, arguments.count)]
    if scorer is None:
        return candidates
    _, entries = read_journal(arguments.search / JOURNAL)
    searches = [("search", entries), *(("random", scored_first(path, len(entries))) for path in arguments.random)]
    uniform = {one.key: score_of(kind, scorer, one) for one in (Candidate("", two) for two in kind.space.uniform())}
    for budget in arguments.budgets:
        for name, journal in searches:
            for entry in pick_finalists(journal, kind.quality.objective, "budgets", 1, [budget]):
                candidates.append(Candidate(f"{name} {budget}", kind.space.parse(entry.choice)))
        within = [Candidate(f"uniform {budget}", one) for one in kind.space.uniform() if macs_of(one) <= budget]
        candidates.append(max(within, key=lambda one: uniform[one.key]))
    return candidates


def score_of(kind: SequenceSearch, scorer: SequenceScorer, candidate: Candidate) -> float:
    """NDCG@10 in the supernet."""
    return 1.0 - scorer.score(candidate.choice)[kind.quality.objective]


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


def write_job(kind: SequenceSearch, candidate: Candidate, seed: int, folder: Path) -> Path:
    name = sub(r"[^0-9a-z]+", "-", candidate.key)
    contender = Contender("baseline", name, candidate.choice, kind.space.cost(candidate.choice), {})
    rate = kind.job.finalists.learning_rates[0]
    entrant = Entrant(contender, rate, str(folder.absolute() / f"{name}-{seed}"))
    job = kind.train_job(entrant, RunFolder(str(folder))).model_copy(update={"seed": seed})
    path = folder / f"{name}-{seed}.yaml"
    path.write_text(dump_job(job))
    return path


def train(path: Path) -> list[str]:
    """Train a network and return its validation NDCG@10, test NDCG@10 and test HR@10."""
    with path.with_suffix(".log").open("w") as log:
        command = [sys.executable, "-m", "raysparse", "train", str(path), "--resume"]
        subprocess.run(command, check=True, stdout=log, stderr=log)
    arms = json.loads((path.with_suffix("") / "summary.json").read_text())["arms"]
    test = arms["best"]["test"]
    return [f"{value:.6f}" for value in (arms["trained"]["ndcg@10"], test["ndcg@10"], test["hr@10"])]


def table(kind: SequenceSearch, candidates: list[Candidate], scorer: SequenceScorer, done: Trained) -> str:
    rows = [
        {
            "group": one.group,
            "key": one.key,
            "macs": macs_of(one.choice),
            "score": score_of(kind, scorer, one),
            **values,
        }
        for one in candidates
        for (key, _), values in done.items()
        if key == one.key
    ]
    drawn = sorted((row for row in rows if row["group"] == DRAWN), key=lambda row: row["macs"])
    third = max(1, -(-len(drawn) // 3))
    bands = [("all", drawn)]
    bands += [(f"third {number + 1}", drawn[number * third : (number + 1) * third]) for number in range(3)]
    lines = [
        "| networks | MACs | count | Kendall's tau of score and validation | with MACs alone |",
        "|---|---|---|---|---|",
    ]
    lines += [band_line(name, band) for name, band in bands if len(band) > 2]
    groups = list(dict.fromkeys(row["group"] for row in rows if row["group"] != DRAWN))
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
