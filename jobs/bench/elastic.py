"""How far the shared weights of a sequence search can be trusted: networks trained alone beside their scores.

python jobs/bench/elastic.py pick  --picks PICKS.csv --search RUN_FOLDER [--count 20]
                                   [--budgets 350000 700000 1400000] [--random JOURNAL ...] [--uniform JOURNAL]
python jobs/bench/elastic.py run   --picks PICKS.csv --results RESULTS.csv --folder FOLDER --job jobs/search-beauty.yaml
                                   [--groups NAME ...] [--seeds 1] [--parallel 2] [KEY=VALUE ...]
python jobs/bench/elastic.py table --picks PICKS.csv --results RESULTS.csv
python jobs/bench/elastic.py times --picks PICKS.csv --job jobs/search-beauty.yaml

RUN_FOLDER is that of a `raysparse search` of a `sasrec` space. `pick` writes down, with their scores: `count` drawn
networks spread evenly over the costs, and for each budget the best network by score of the search's journal, of each
journal of a random search on the same shared weights, after as many scores as the search has, and of those whose blocks
are all alike (`python jobs/bench/searchers.py run --only random uniform` leaves them as random-SEED.jsonl and
uniform-1.jsonl). `run` trains them alone, as the job's finalists are; what stands in RESULTS.csv is not trained again.
`table` prints rank correlations, within thirds of the costs as well, and what is kept of each budget: means over picks
and seeds, and the median of the test. `times` prints what 64 histories, each as long as the network reads, take of the
picks for budgets and of the job's baselines, on one thread, medians of three rounds; and how multiply-adds, latency and
energy rank these and the drawn networks.
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
from raysparse.cost.energy import encoder_energy
from raysparse.cost.latency import measure_encoder
from raysparse.data.dataset import Dataset
from raysparse.job import SearchJob, check_job, dump_job, load_job, require_kind
from raysparse.launch.click_search import CACHE
from raysparse.launch.entrants import Contender, Entrant
from raysparse.launch.sequence_search import SequenceSearch
from raysparse.models.sasrec.config import SASRecConfig
from raysparse.models.sasrec.encoder import SASRec
from raysparse.report.search_run import JOURNAL
from raysparse.search.finalists import pick_finalists
from raysparse.search.journal import Entry, read_journal
from raysparse.search.ranking import kendall_interval, kendall_tau
from raysparse.search.sasrec_space import SASRecSpace, text_of
from raysparse.train.run_folder import JOB, RunFolder

PICKED = ("group", "network", "macs", "score", "choice")
TRAINED = ("network", "macs", "seed", "validation", "test", "test_hr")
DRAWN = "drawn"
DRAWS_PER_NETWORK = 50

Results = dict[tuple[str, int], dict[str, float]]
"""What networks came to, by their text and the seed."""


@dataclass(frozen=True)
class Pick:
    """A network to train alone."""

    group: str
    choice: SASRecConfig
    score: float
    """NDCG@10 in the supernet."""

    @property
    def network(self) -> str:
        """Its name in the results."""
        return text_of(self.choice)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["pick", "run", "table", "times"])
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--picks", required=True, type=Path)
    parser.add_argument("--search", type=Path)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--budgets", nargs="*", type=int, default=[])
    parser.add_argument("--random", nargs="*", type=Path, default=[])
    parser.add_argument("--uniform", type=Path)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--job", type=Path)
    parser.add_argument("--groups", nargs="*")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--parallel", type=int, default=2)
    arguments = parser.parse_intermixed_args()
    needed = {
        "pick": ("search",),
        "run": ("results", "folder", "job"),
        "table": ("results",),
        "times": ("job",),
    }[arguments.what]
    if missing := [name for name in needed if getattr(arguments, name) is None]:
        parser.error(f"{arguments.what} needs {', '.join(f'--{name}' for name in missing)}")
    {
        "pick": pick,
        "run": run,
        "table": lambda given: print(table(given)),
        "times": lambda given: print(times(given)),
    }[arguments.what](arguments)


def pick(arguments: argparse.Namespace) -> None:
    job = require_kind(SearchJob, check_job(load_tree(arguments.search / JOB), "the search"), "the search")
    kind = SequenceSearch(job, Dataset.open(job.data.path))
    scorer = kind.scorer(str(arguments.search / CACHE), torch.device("cpu"))

    def scored(group: str, choice: SASRecConfig) -> Pick:
        return Pick(group, choice, 1.0 - scorer.score(choice)[kind.quality.objective])

    picks = [scored(DRAWN, choice) for choice in spread(kind.space, arguments.count)]
    _, entries = read_journal(arguments.search / JOURNAL)
    searches = [("search", entries), *(("random", scored_first(path, len(entries))) for path in arguments.random)]
    if arguments.uniform is not None:
        searches.append(("uniform", read_journal(arguments.uniform)[1]))
    for budget in arguments.budgets:
        for name, journal in searches:
            for entry in pick_finalists(journal, kind.quality.objective, "budgets", 1, [budget]):
                picks.append(scored(f"{name} {budget}", kind.space.parse(entry.choice)))
    with arguments.picks.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(PICKED)
        for one in picks:
            score, choice = f"{one.score:.6f}", one.choice.model_dump_json()
            writer.writerow([one.group, one.network, macs_of(one.choice), score, choice])


def picked(path: Path) -> list[Pick]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [Pick(row["group"], SASRecConfig.model_validate_json(row["choice"]), float(row["score"])) for row in rows]


def run(arguments: argparse.Namespace) -> None:
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    job = require_kind(SearchJob, load_job(arguments.job, tuple(arguments.overrides)), str(arguments.job))
    kind = SequenceSearch(job, Dataset.open(job.data.path))
    results: Path = arguments.results
    if not results.exists():
        results.write_text(",".join(TRAINED) + "\n")
    picks = [one for one in picked(arguments.picks) if not arguments.groups or one.group in arguments.groups]
    wanted = {
        (one.network, seed): one
        for one in picks
        for seed in (arguments.seeds[:1] if one.group == DRAWN else arguments.seeds)
    }
    done = trained(results)
    writing = Lock()

    def train_one(of_run: tuple[tuple[str, int], Pick]) -> None:
        (network, seed), one = of_run
        values = train(write_job(kind, one, seed, folder))
        with writing, results.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow([network, macs_of(one.choice), seed, *values])
        print(f"{network}, seed {seed}: {', '.join(values)}", flush=True)

    with ThreadPoolExecutor(arguments.parallel) as pool:
        list(pool.map(train_one, (pair for pair in wanted.items() if pair[0] not in done)))


def trained(results: Path) -> Results:
    with results.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        (row["network"], int(row["seed"])): {name: float(row[name]) for name in ("validation", "test", "test_hr")}
        for row in rows
    }


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


def write_job(kind: SequenceSearch, one: Pick, seed: int, folder: Path) -> Path:
    name = sub(r"[^0-9a-z]+", "-", one.network)
    contender = Contender("baseline", name, one.choice, kind.space.cost(one.choice), {})
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


def table(arguments: argparse.Namespace) -> str:
    done = trained(arguments.results)
    first = {network: min(seed for other, seed in done if other == network) for network, _ in done}
    rows = [
        {"group": one.group, "key": one.network, "macs": macs_of(one.choice), "score": one.score, **values}
        for one in picked(arguments.picks)
        for (network, seed), values in done.items()
        # A drawn one may be a pick with more seeds as well, and counts once.
        if network == one.network and (one.group != DRAWN or seed == first[network])
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


def times(arguments: argparse.Namespace) -> str:
    job = require_kind(SearchJob, load_job(arguments.job), str(arguments.job))
    picks = picked(arguments.picks)
    baselines = [one for one in job.baselines if isinstance(one, SASRecConfig)]
    listed = {one.network for one in picks if one.group != DRAWN} | {text_of(choice) for choice in baselines}
    choices = [one.choice for one in picks] + baselines
    encoders = {text_of(choice): (choice, SASRec(choice).eval()) for choice in choices}
    taken: dict[str, list[float]] = {name: [] for name in encoders}
    for _ in range(3):
        for name, (choice, encoder) in encoders.items():
            taken[name].append(measure_encoder(encoder, choice.max_length, choice.embedding_dim).latency_us[64] / 1e3)
    lines = ["| network | MACs | ms (range) |", "|---|---|---|"]
    for name, (choice, _) in encoders.items():
        if name in listed:
            low, median, high = sorted(taken[name])
            lines.append(f"| {name} | {macs_of(choice):,} | {median:.1f} ({low:.1f} to {high:.1f}) |")
    medians = [statistics.median(of_network) for of_network in taken.values()]
    energies = [encoder_energy(encoder, choice) for choice, encoder in encoders.values()]
    spent = [energy.microjoules for energy in energies]
    counted = "counted" if all(energy.is_proxy for energy in energies) else "measured"
    macs = [macs_of(choice) for choice, _ in encoders.values()]
    lines += ["", f"| of {len(macs)} networks | Kendall's tau |", "|---|---|"]
    for name, x, y in (
        ("multiply-adds and latency", macs, medians),
        (f"multiply-adds and energy ({counted})", macs, spent),
        (f"latency and energy ({counted})", medians, spent),
    ):
        low, high = kendall_interval(x, y, 0)
        lines.append(f"| {name} | {kendall_tau(x, y):.2f} ({low:.2f} to {high:.2f}) |")
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
