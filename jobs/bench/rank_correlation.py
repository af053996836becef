"""Whether a supernet ranks networks as training them alone does, for several recipes.

python jobs/bench/rank_correlation.py alone [KEY=VALUE ...] --folder FOLDER [--choices 50] [--parallel 2]
python jobs/bench/rank_correlation.py score [KEY=VALUE ...] --folder FOLDER [--choices 50] [--parallel 2]
  [--recipes "widest teaches" ...] [--scorings "own weights" ...]
python jobs/bench/rank_correlation.py table --folder FOLDER [--results FILE.csv]

`alone` draws choices of jobs/search-drift.yaml's space at random, and trains each on the training days as a finalist.
`score` trains a supernet by each recipe, and scores the same choices with it: with its weights, the head tuned or as it
is, and with weights of their own on its look-ups. Each of these is one process of one thread, and both go on where they
were stopped. `table` prints Kendall's tau with its 95 % interval, and of multiply-adds and between supernets for
comparison, and writes the losses of all choices to a file.
"""

import argparse
import csv
import json
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import combinations
from pathlib import Path
from random import Random
from statistics import mean, median, stdev
from typing import Any

import ray
import torch
import torch.distributed as dist

from raysparse.callbacks import build_callback
from raysparse.data.dataset import Dataset, Day
from raysparse.job import SearchJob, TrainJob, load_job, require_kind
from raysparse.launch.arms import ArmBuilder
from raysparse.launch.click_search import CACHE, ClickSearch, mean_scores
from raysparse.launch.cluster import connect
from raysparse.launch.data import ensure_data
from raysparse.launch.task import stream_of, task_of
from raysparse.models.nasrec.choice import NASRecConfig
from raysparse.search.ctr_space import CTRSpace
from raysparse.search.feature_cache import FeatureCache
from raysparse.search.ranking import kendall_interval, kendall_tau
from raysparse.search.scoring import Scorer
from raysparse.search.supernet_cache import MANIFEST
from raysparse.train.arm import TRAINED
from raysparse.train.callback import Callback
from raysparse.train.loop import fit
from raysparse.train.run_folder import RunFolder
from raysparse.train.state import TrainState

JOB = Path(__file__).parents[1] / "search-drift.yaml"
DRAWN = ("supernet.sampling.widest=false", "supernet.sampling.distillation=0.0")
RECIPES = {
    "widest teaches": (),
    "widest teaches four": ("supernet.sampling.paths_per_step=4",),
    "drawn networks alone": DRAWN,
    "single-connection": (*DRAWN, "supernet.sampling.connections=single"),
    "widest teaches, adam": (
        "supernet.optimizer.dense={kind: adam, learning_rate: 2e-3, clip_norm: 5.0}",
        "supernet.optimizer.sparse.learning_rate=0.03",
    ),
}
"""Keys of the job in which a recipe differs from it."""
SCORINGS = {
    "own weights": ("scoring.tuned=network",),
    "head tuned": (
        "scoring.tuned=head",
        "scoring.tuning_rows=16_384",
        "scoring.tuning_steps=200",
        "scoring.tuning_batch_size=512",
        "scoring.tuning_learning_rate=null",
    ),
    "head as it is": ("scoring.tuned=head", "scoring.tuning_steps=0"),
}
"""Keys of the job in which a way of scoring differs from it."""
ALONE = "alone.jsonl"
SCORES = "scores.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["alone", "score", "table"])
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--choices", type=int, default=50)
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=tuple(RECIPES))
    parser.add_argument("--scorings", nargs="+", choices=SCORINGS, default=tuple(SCORINGS))
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_intermixed_args()
    folder: Path = arguments.folder.absolute()
    if arguments.what == "table":
        if arguments.results is not None:
            write_results(folder, arguments.results)
        print(table(folder))
        return
    folder.mkdir(parents=True, exist_ok=True)
    overrides = tuple(arguments.overrides)
    connect(arguments.parallel)
    ensure_data(job_of(overrides, folder).data, Lines())
    ray.shutdown()
    with ProcessPoolExecutor(arguments.parallel, multiprocessing.get_context("spawn")) as pool:
        if arguments.what == "alone":
            done = {line["number"] for line in lines_of(folder / ALONE)}
            left = [number for number in range(arguments.choices) if number not in done]
            for line in pool.map(partial(alone, overrides, folder), left):
                append(folder / ALONE, line)
                print(f"alone {line['number']}: {line['log_loss']:.5f}, {line['macs']:,} MACs", flush=True)
        else:
            numbers = range(arguments.choices)
            supernets = [pool.submit(train_supernet, overrides, folder, one) for one in arguments.recipes]
            for future in supernets:
                future.result()
            scored = [
                pool.submit(score, overrides, folder, recipe, scoring, numbers[part :: arguments.parallel])
                for recipe in arguments.recipes
                for scoring in arguments.scorings
                for part in range(arguments.parallel)
            ]
            for future in scored:
                future.result()


class Lines:
    """Prints the messages of a run."""

    def message(self, text: str) -> None:
        """Print a line."""
        print(text, flush=True)


class Records(Callback):
    """Keeps the history lines of all days."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def day_end(self, state: TrainState) -> None:
        """Take the day's."""
        self.lines += state.records


def alone(overrides: tuple[str, ...], folder: Path, number: int) -> dict[str, Any]:
    """Train one choice as a finalist is trained."""
    job, dataset, search = opened(overrides, folder)
    choice = search.space.canonical(drawn(search.space, number))
    rate = job.finalists.learning_rates[0]
    optimizer = job.finalists.optimizer
    optimizer = optimizer.model_copy(update={"dense": optimizer.dense.model_copy(update={"learning_rate": rate})})
    train_job = search.supernet_job(RunFolder(str(folder))).model_copy(
        update={"model": choice, "data": job.data, "optimizer": optimizer, "callbacks": ()}
    )
    days = (*search.split.training, *search.split.validation)
    lines = trained(train_job, dataset, days)
    return {
        "number": number,
        "key": search.space.key(choice),
        "macs": search.space.cost(choice).macs,
        **mean_scores(lines, search.split.validation),
    }


def train_supernet(overrides: tuple[str, ...], folder: Path, recipe: str) -> None:
    """Train a supernet, and look its rows up."""
    _, dataset, search = opened((*overrides, *RECIPES[recipe]), folder)
    own = folder / recipe
    if not (own / CACHE / MANIFEST).exists():
        lines = trained(search.supernet_job(RunFolder(str(own))), dataset, search.split.training)
        print(f"{recipe}: the widest network's losses {[round(line['log_loss'], 4) for line in lines]}", flush=True)


def score(overrides: tuple[str, ...], folder: Path, recipe: str, scoring: str, numbers: Sequence[int]) -> None:
    """Score some choices with a supernet."""
    torch.set_num_threads(1)
    job, _, search = opened((*overrides, *RECIPES[recipe], *SCORINGS[scoring]), folder)
    cache = FeatureCache.open(str(folder / recipe / CACHE))
    done = {(line["recipe"], line["scoring"], line["number"]) for line in lines_of(folder / SCORES)}
    scorer = Scorer(cache, search.space, job.scoring, job.seed)
    for number in numbers:
        if (recipe, scoring, number) not in done:
            started = time.perf_counter()
            # The blocks as drawn: their places decide which of the shared weights they use.
            scores = scorer.score(drawn(search.space, number))
            seconds = time.perf_counter() - started
            line = {"recipe": recipe, "scoring": scoring, "number": number, "seconds": seconds, **scores}
            append(folder / SCORES, line)
    print(f"{recipe}, {scoring}: {len(numbers)} scored", flush=True)


def opened(overrides: tuple[str, ...], folder: Path) -> tuple[SearchJob, Dataset, ClickSearch]:
    job = job_of(overrides, folder)
    dataset = Dataset.open(job.data.path)
    return job, dataset, ClickSearch.of(job, dataset)


def job_of(overrides: tuple[str, ...], folder: Path) -> SearchJob:
    return require_kind(SearchJob, load_job(JOB, (*overrides, f"run_folder={folder}")), str(JOB))


def drawn(space: CTRSpace, number: int) -> NASRecConfig:
    return space.sample(Random(f"rank_correlation/{number}"))


def trained(job: TrainJob, dataset: Dataset, days: Sequence[Day]) -> list[dict[str, Any]]:
    """Train in this process, as one rank of one thread; the history's lines."""
    torch.set_num_threads(1)
    if not dist.is_initialized():
        dist.init_process_group("gloo", init_method="tcp://127.0.0.1:0", rank=0, world_size=1)
    device = torch.device("cpu")
    builder = ArmBuilder(job, dataset, device, 1)
    records = Records()
    state = TrainState(
        days=tuple(days),
        stream=stream_of(job, dataset),
        arms=[builder(TRAINED, trains=True)],
        make_arm=builder,
        task=task_of(job, dataset, device),
        seed=job.seed,
        device=device,
    )
    callbacks = [build_callback(config, job.seed, job.model, dataset.schema) for config in job.callbacks]
    fit(state, [records, *callbacks], job.optimizer.schedule, 0)
    return records.lines


def table(folder: Path) -> str:
    losses = {line["number"]: line["log_loss"] for line in lines_of(folder / ALONE)}
    rows = [
        "| supernet | scored with | networks | mean | deviation | seconds | trained alone, too | Kendall's tau |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    found = scores_of(folder)
    for (recipe, scoring), lines in found.items():
        scores = [line["log_loss"] for line in lines.values()]
        rows.append(
            f"| {recipe} | {scoring} | {len(scores)} | {mean(scores):.4f} | {stdev(scores):.4f} | "
            f"{median(line['seconds'] for line in lines.values()):.1f} | {len(lines.keys() & losses.keys())} | "
            f"{tau(log_losses(lines), losses)} |"
        )
    more = {line["number"]: -line["macs"] for line in lines_of(folder / ALONE)}
    rows += ["", f"More multiply-adds against trained alone: {tau(more, losses)}."]
    for (one, its), (other, others) in combinations(found.items(), 2):
        text = tau(log_losses(its), log_losses(others))
        rows.append(f"{', '.join(one)} against {', '.join(other)}, {len(its.keys() & others.keys())} networks: {text}.")
    return "\n".join(rows)


def scores_of(folder: Path) -> dict[tuple[str, str], dict[int, dict[str, Any]]]:
    """Lines of the scored networks by number, for each supernet and way of scoring."""
    found: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for line in lines_of(folder / SCORES):
        found.setdefault((line["recipe"], line["scoring"]), {})[line["number"]] = line
    return dict(sorted(found.items()))


def log_losses(lines: dict[int, dict[str, Any]]) -> dict[int, float]:
    return {number: line["log_loss"] for number, line in lines.items()}


def tau(scores: dict[int, float], losses: dict[int, float]) -> str:
    numbers = sorted(scores.keys() & losses.keys())
    if len(numbers) < 2:
        return ""
    x, y = [scores[number] for number in numbers], [losses[number] for number in numbers]
    low, high = kendall_interval(x, y, seed=0)
    return f"{kendall_tau(x, y):.2f} ({low:.2f} to {high:.2f})"


def write_results(folder: Path, path: Path) -> None:
    """Write a line for each choice: its loss alone, and its scores."""
    found = scores_of(folder)
    columns = {", ".join(key): log_losses(lines) for key, lines in found.items()}
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["number", "network", "macs", "alone", *columns])
        alone_lines = {line["number"]: line for line in lines_of(folder / ALONE)}
        scored = (line for lines in found.values() for line in lines.values())
        macs = {line["number"]: int(line["macs"]) for line in (*scored, *alone_lines.values())}
        for number in sorted(macs):
            line = alone_lines.get(number, {})
            of_choice = [line.get("log_loss"), *(column.get(number) for column in columns.values())]
            losses = ["" if loss is None else f"{loss:.6f}" for loss in of_choice]
            writer.writerow([number, line.get("key", ""), macs[number], *losses])


def lines_of(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        yield from map(json.loads, path.read_text().splitlines())


def append(path: Path, line: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
