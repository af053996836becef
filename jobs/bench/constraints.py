"""What the three constraints of a search by gradients come to: the costs of what they find, over seeds.

python jobs/bench/constraints.py run --search RUN_FOLDER --results FILE.csv [--seeds 1 2 3] [--shares 0.125 0.25 0.5]
                                     [--strengths 0.03 0.1 0.3 1 3]
python jobs/bench/constraints.py table --results FILE.csv

RUN_FOLDER is that of a `raysparse search` of a `sasrec` space with `searcher: {kind: differentiable, learned_from:
held_out}`. `run` searches on its shared weights, as that searcher does, with prices of the cost (`fixed`, and `paper`:
EASRec's) and with budgets that are shares of the largest network's cost (`dual`), for each seed, and goes on where it
was stopped. `table` prints the costs of the found networks, as shares of the largest one's, and how far those of
budgets lie from them.
"""

import argparse
import csv
import statistics
from pathlib import Path
from typing import Any

from raysparse.config import load_tree
from raysparse.cost.encoder import encoder_macs
from raysparse.data.dataset import Dataset
from raysparse.job import SearchJob, check_job, require_kind
from raysparse.launch.click_search import CACHE
from raysparse.launch.sequence_search import SequenceSearch
from raysparse.search.pressure import (
    DualPressureConfig,
    FixedPressureConfig,
    PaperPressureConfig,
    PressureConfig,
)
from raysparse.search.relaxation import DifferentiableConfig, Relaxation
from raysparse.search.sasrec_space import text_of
from raysparse.train.run_folder import JOB

COLUMNS = ("constraint", "value", "seed", "largest", "macs", "expected_macs", "network")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("--search", type=Path)
    parser.add_argument("--results", required=True, type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--shares", nargs="*", type=float, default=[0.125, 0.25, 0.5])
    parser.add_argument("--strengths", nargs="*", type=float, default=[0.03, 0.1, 0.3, 1.0, 3.0])
    arguments = parser.parse_args()
    if arguments.what == "run":
        if arguments.search is None:
            parser.error("run needs --search")
        run(arguments)
    print(table(arguments.results))


def run(arguments: argparse.Namespace) -> None:
    job = require_kind(SearchJob, check_job(load_tree(arguments.search / JOB), "the search"), "the search")
    searcher = job.searcher
    if not isinstance(searcher, DifferentiableConfig) or searcher.learned_from != "held_out":
        raise SystemExit(f"{arguments.search}: not a search by gradients of what was held out")
    dataset = Dataset.open(job.data.path)
    most = Relaxation(SequenceSearch(job, dataset).space.config, 0).most
    results: Path = arguments.results
    if not results.exists():
        results.write_text(",".join(COLUMNS) + "\n")
    done = {(row["constraint"], float(row["value"]), int(row["seed"])) for row in rows_of(results)}
    for seed in arguments.seeds:
        for kind, value, constraint in constraints_of(arguments.strengths, arguments.shares, most):
            if (kind, value, seed) in done:
                continue
            changed = {"seed": seed, "searcher": searcher.model_copy(update={"constraint": constraint})}
            (found,) = SequenceSearch(job.model_copy(update=changed), dataset).relaxed(str(arguments.search / CACHE))
            macs = encoder_macs(found.choice, found.choice.max_length)
            row = [kind, value, seed, most, macs, round(found.expected_macs), text_of(found.choice)]
            with results.open("a", newline="") as file:
                csv.writer(file, lineterminator="\n").writerow(row)
            print(*row, flush=True)


def constraints_of(strengths: list[float], shares: list[float], most: int) -> list[tuple[str, float, PressureConfig]]:
    found: list[tuple[str, float, PressureConfig]] = []
    for strength in strengths:
        found.append(("fixed", strength, FixedPressureConfig(strengths=(strength,))))
        found.append(("paper", strength, PaperPressureConfig(strengths=(strength,))))
    return found + [("dual", share, DualPressureConfig(budgets=(round(share * most),))) for share in shares]


def rows_of(results: Path) -> list[dict[str, Any]]:
    with results.open(newline="") as file:
        return list(csv.DictReader(file))


def table(results: Path) -> str:
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for row in rows_of(results):
        groups.setdefault((row["constraint"], float(row["value"])), []).append(row)
    lines = [
        "| constraint | price or budget | seeds | MACs, of the largest's: median (range) | expected | off the budget |",
        "|---" * 6 + "|",
    ]
    for (kind, value), rows in sorted(groups.items()):
        shares = [int(row["macs"]) / int(row["largest"]) for row in rows]
        expected = statistics.median(int(row["expected_macs"]) / int(row["largest"]) for row in rows)
        off = f"{max(abs(share / value - 1.0) for share in shares):.1%} at most" if kind == "dual" else ""
        spread = f"{statistics.median(shares):.3f} ({min(shares):.3f} to {max(shares):.3f})"
        lines.append(f"| {kind} | {value:g} | {len(rows)} | {spread} | {expected:.3f} | {off} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
