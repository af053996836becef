"""Whether a supernet ranks networks as training them alone does, for several recipes.

python jobs/bench/rank_correlation.py run --folder FOLDER [--choices 50] [--parallel 2] [--samplings any single]
  [KEY=VALUE ...]
python jobs/bench/rank_correlation.py table --folder FOLDER

`run` trains two supernets (any-connection and single-connection sampling) of jobs/search-drift.yaml, draws choices at
random, trains each alone on the training days, and scores all with each supernet, with and without tuning the head. It
goes on where it was stopped. `table` prints Kendall's tau with its 95 % interval.
"""

import argparse
import json
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.distributed as dist

from raysparse.data.dataset import Dataset
from raysparse.data.split import split_days
from raysparse.data.stream import DayStream
from raysparse.job import SearchJob, load_job, require_kind
from raysparse.launch.arms import ArmBuilder
from raysparse.launch.click_search import ClickSearch, mean_scores
from raysparse.launch.cluster import connect
from raysparse.launch.data import ensure_data
from raysparse.launch.trainer import Quiet, finish_run
from raysparse.models.nasrec.choice import NASRecConfig
from raysparse.search.ctr_space import CTRSpace
from raysparse.search.feature_cache import FeatureCache
from raysparse.search.ranking import kendall_interval, kendall_tau
from raysparse.search.scoring import Scorer
from raysparse.train.arm import TRAINED
from raysparse.train.callback import Callback
from raysparse.train.click import ClickTask
from raysparse.train.loop import fit
from raysparse.train.run_folder import RunFolder
from raysparse.train.state import TrainState

JOB = Path(__file__).parents[1] / "search-drift.yaml"
SAMPLINGS = ("any", "single")
ALONE = "alone.jsonl"
SCORES = "scores.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--choices", type=int, default=50)
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--samplings", nargs="+", choices=SAMPLINGS, default=SAMPLINGS)
    arguments = parser.parse_intermixed_args()
    if arguments.what == "run":
        arguments.folder.mkdir(parents=True, exist_ok=True)
        overrides = (*arguments.overrides, f"run_folder={arguments.folder}")
        job = require_kind(SearchJob, load_job(JOB, overrides), str(JOB))
        train_supernets(job, arguments.samplings, arguments.folder)
        train_alone(overrides, arguments.folder, arguments.choices, arguments.parallel)
        score(job, arguments.samplings, arguments.folder)
    print(table(arguments.folder))


class Lines:
    """Prints the messages of a run."""

    def message(self, text: str) -> None:
        """Print a line."""
        print(text, flush=True)


def train_supernets(job: SearchJob, samplings: Sequence[str], folder: Path) -> None:
    connect(job.scaling.num_workers * job.scaling.threads_per_worker)
    dataset = ensure_data(job.data, Lines())
    for sampling in samplings:
        own = job.supernet.sampling.model_copy(update={"connections": sampling})
        with_sampling = job.model_copy(update={"supernet": job.supernet.model_copy(update={"sampling": own})})
        print(f"supernet, {sampling}-connection sampling", flush=True)
        train_job = ClickSearch.of(with_sampling, dataset).supernet_job(RunFolder(str(folder.absolute() / sampling)))
        finish_run(train_job, Quiet(Lines().message))


def choice_of(space: CTRSpace, number: int) -> NASRecConfig:
    return space.canonical(space.sample(Random(f"rank_correlation/{number}")))


def train_alone(overrides: tuple[str, ...], folder: Path, num_choices: int, parallel: int) -> None:
    done = {line["number"] for line in lines_of(folder / ALONE)}
    left = [number for number in range(num_choices) if number not in done]
    with (
        ProcessPoolExecutor(parallel, multiprocessing.get_context("spawn")) as pool,
        (folder / ALONE).open("a", encoding="utf-8") as file,
    ):
        for line in pool.map(alone, [(overrides, number) for number in left]):
            file.write(json.dumps(line) + "\n")
            file.flush()
            print(f"alone {line['number']}: {line['log_loss']:.5f}, {line['macs']:,} MACs", flush=True)


class Records(Callback):
    """Keeps the history lines of all days."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def day_end(self, state: TrainState) -> None:
        """Take the day's."""
        self.lines += state.records


def alone(arguments: tuple[tuple[str, ...], int]) -> dict[str, Any]:
    """Train one choice in this process, as one rank."""
    overrides, number = arguments
    job = require_kind(SearchJob, load_job(JOB, overrides), str(JOB))
    dataset = Dataset.open(job.data.path)
    split = split_days(dataset.days, job.split)
    space = ClickSearch.of(job, dataset).space
    choice = choice_of(space, number)
    torch.set_num_threads(1)
    if not dist.is_initialized():
        dist.init_process_group("gloo", init_method="tcp://127.0.0.1:0", rank=0, world_size=1)
    rate = job.finalists.learning_rates[0]
    optimizer = job.finalists.optimizer
    optimizer = optimizer.model_copy(update={"dense": optimizer.dense.model_copy(update={"learning_rate": rate})})
    device = torch.device("cpu")
    train_job = (
        ClickSearch.of(job, dataset)
        .supernet_job(RunFolder("unused"))
        .model_copy(update={"model": choice, "optimizer": optimizer, "callbacks": ()})
    )
    builder = ArmBuilder(train_job, dataset, device, 1)
    records = Records()
    state = TrainState(
        days=(*split.training, *split.validation),
        stream=DayStream(dataset, job.data, job.seed),
        arms=[builder(TRAINED, trains=True)],
        make_arm=builder,
        task=ClickTask(device),
        seed=job.seed,
        device=device,
    )
    fit(state, [records], optimizer.schedule, 0)
    return {
        "number": number,
        "key": space.key(choice),
        "macs": builder.cost.macs,
        **mean_scores(records.lines, split.validation),
    }


def score(job: SearchJob, samplings: Sequence[str], folder: Path) -> None:
    dataset = Dataset.open(job.data.path)
    space = ClickSearch.of(job, dataset).space
    done = {(line["recipe"], line["number"]) for line in lines_of(folder / SCORES)}
    numbers = [line["number"] for line in lines_of(folder / ALONE)]
    with (folder / SCORES).open("a", encoding="utf-8") as file:
        for sampling in samplings:
            cache = FeatureCache.open(str(folder / sampling / "cache"))
            for steps in (job.scoring.tuning_steps, 0):
                recipe = f"{sampling}-connection, {f'head tuned for {steps} steps' if steps else 'head as it is'}"
                scorer = Scorer(cache, space, job.scoring.model_copy(update={"tuning_steps": steps}), job.seed)
                for number in numbers:
                    if (recipe, number) not in done:
                        # The blocks as drawn: their places decide which of the shared weights they use.
                        drawn = space.sample(Random(f"rank_correlation/{number}"))
                        line = {"recipe": recipe, "number": number, **scorer.score(drawn)}
                        file.write(json.dumps(line) + "\n")
                print(recipe, flush=True)


def table(folder: Path) -> str:
    alone_losses = {line["number"]: line["log_loss"] for line in lines_of(folder / ALONE)}
    rows = ["| recipe | choices | Kendall's tau | 95 % interval |", "|---|---|---|---|"]
    scores = list(lines_of(folder / SCORES))
    for recipe in dict.fromkeys(line["recipe"] for line in scores):
        of_recipe = [line for line in scores if line["recipe"] == recipe]
        x = [line["log_loss"] for line in of_recipe]
        y = [alone_losses[line["number"]] for line in of_recipe]
        low, high = kendall_interval(x, y, seed=0)
        rows.append(f"| {recipe} | {len(x)} | {kendall_tau(x, y):.2f} | {low:.2f} to {high:.2f} |")
    return "\n".join(rows)


def lines_of(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        yield from map(json.loads, path.read_text().splitlines())


if __name__ == "__main__":
    main()
