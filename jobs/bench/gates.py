"""What data-aware gates are worth: beside as many multiply-adds in the layers themselves, and fed by another user.

python jobs/bench/gates.py run --folder FOLDER [KEY=VALUE ...] [--job jobs/beauty.yaml] [--parallel 2]
    [--seeds 1 2 3] [--only none paper wider_as_paper context wider_as_context]
python jobs/bench/gates.py table --folder FOLDER

`run` trains the job's network without gates, with each kind of gate, and without gates and with feed-forward networks
as much wider as the gates of a kind cost; it goes on where it was stopped. `table` prints the means of the seeds and,
of gated networks, the test NDCG@10 when the gates read the history of another user in the place of the one that is
encoded: what is left of it then does not come from the data.
"""

import argparse
import json
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor

from raysparse.config import load_tree
from raysparse.cost.encoder import encoder_macs
from raysparse.data.dataset import Dataset
from raysparse.data.schema import ITEM_TABLE
from raysparse.data.selection import select_days
from raysparse.data.sequence_batch import LastSequences
from raysparse.job import TrainJob, check_train_job, load_job, require_kind
from raysparse.launch.task import item_draws, stream_of
from raysparse.models.sasrec import encoder as encoder_module
from raysparse.models.sasrec.config import SASRecConfig
from raysparse.models.sasrec.encoder import SASRec
from raysparse.models.sasrec.gates import Context, context_of
from raysparse.models.sasrec.jagged import Bucket
from raysparse.search.sequence_scoring import HeldSequenceModel
from raysparse.sharding.global_tensor import replicated
from raysparse.train.checkpoint import CheckpointFolder
from raysparse.train.ranking import RankingMetrics
from raysparse.train.run_folder import JOB, RunFolder
from raysparse.train.tensor_store import TensorStore

GATES = ("paper", "context")
ARM = "best"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--job", type=Path, default=Path("jobs/beauty.yaml"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--only", nargs="+")
    arguments = parser.parse_intermixed_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.what == "run":
        run(arguments)
    print(table(arguments.folder))


def run(arguments: argparse.Namespace) -> None:
    job = require_kind(TrainJob, load_job(arguments.job, tuple(arguments.overrides)), str(arguments.job))
    assert isinstance(job.model, SASRecConfig)
    runs = [
        (arguments, f"{name}-{seed}", (*of_name, f"seed={seed}"))
        for seed in arguments.seeds
        for name, of_name in networks_of(job.model).items()
        if arguments.only is None or name in arguments.only
    ]
    with ThreadPoolExecutor(arguments.parallel) as pool:
        list(pool.map(train, runs))


def networks_of(model: SASRecConfig) -> dict[str, tuple[str, ...]]:
    networks: dict[str, tuple[str, ...]] = {"none": ()}
    for gate in GATES:
        networks[gate] = (f"model.gate={gate}",)
        networks[f"wider_as_{gate}"] = (f"model.ffn_width={width_as_dear(model, gate)}",)
    return networks


def width_as_dear(model: SASRecConfig, gate: str) -> int:
    """Inner width that takes as many multiply-adds without gates as the model's own width with them."""
    length, (width,) = model.max_length, set(model.inner_widths)
    dearer = model.model_copy(update={"gate": gate})
    per_neuron = 2 * model.embedding_dim * model.num_layers * length
    return width + round((encoder_macs(dearer, length) - encoder_macs(model, length)) / per_neuron)


def train(of_run: tuple[argparse.Namespace, str, tuple[str, ...]]) -> None:
    arguments, name, overrides = of_run
    folder: Path = arguments.folder / name
    if (folder / "summary.json").exists():
        return
    with folder.with_suffix(".log").open("w") as log:
        command = [sys.executable, "-m", "raysparse", "train", str(arguments.job), "--resume", f"run_folder={folder}"]
        subprocess.run([*command, *overrides, *arguments.overrides], check=True, stdout=log, stderr=log)
    print(f"{name} done", flush=True)


def table(folder: Path) -> str:
    lines = [
        "| gates | MACs | seeds | validation NDCG@10 | test NDCG@10 | gates fed by another user |",
        "|---" * 6 + "|",
    ]
    finished = sorted(path.parent for path in folder.glob("*/summary.json"))
    for name in dict.fromkeys(path.name.rpartition("-")[0] for path in finished):
        rows = [row_of(path) for path in finished if path.name.rpartition("-")[0] == name]
        cells = [spread([row[key] for row in rows]) for key in ("validation", "test", "other")]
        lines.append(f"| {name} | {rows[0]['macs']:,} | {len(rows)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def row_of(run_folder: Path) -> dict[str, Any]:
    arms = json.loads((run_folder / "summary.json").read_text())["arms"]
    row = {
        "macs": arms[ARM]["macs"],
        "validation": arms["trained"]["ndcg@10"],
        "test": arms[ARM]["test"]["ndcg@10"],
    }
    with patch.object(encoder_module, "context_of", of_another_user):
        return row | {"other": test_ndcg(run_folder)}


def of_another_user(kind: str, inputs: Tensor, buckets: list[Bucket]) -> Context:
    """Let each sequence's gates read the sequence that comes next in its bucket, from its beginning on."""
    own = context_of(kind, inputs, buckets)
    items, mean = own.items.clone(), own.mean.clone()
    for bucket in buckets:
        # Padding stands for the first item of its sequence: a shorter history goes on as it began.
        other = bucket.places.roll(1, 0)
        items[bucket.places[bucket.kept]] = own.items[other[bucket.kept]]
        mean[bucket.places[bucket.kept]] = own.mean[other[bucket.kept]]
    return Context(items, mean)


@torch.inference_mode()
def test_ndcg(run_folder: Path) -> float:
    """Predict the test part with the weights of the best epoch, in this process."""
    job = check_train_job(load_tree(run_folder / JOB), str(run_folder))
    assert isinstance(job.model, SASRecConfig)
    dataset = Dataset.open(job.data.path)
    encoder, items = weights_of(run_folder, job.model, dataset.schema.ids[0].rows)
    draws = item_draws(job.model, job.ranking, dataset, job.seed)
    metrics = RankingMetrics(job.ranking, LastSequences(job.model.max_length), draws)
    test = select_days(dataset, None, None, job.data.epochs)[-1]
    for batch in stream_of(job, dataset).scored_batches(test):
        metrics.add(HeldSequenceModel(encoder, items), batch)
    return metrics.compute()["ndcg@10"]


def weights_of(run_folder: Path, model: SASRecConfig, num_rows: int) -> tuple[SASRec, Tensor]:
    if not dist.is_initialized():
        dist.init_process_group("gloo", init_method="tcp://127.0.0.1:0", rank=0, world_size=1)
    checkpoints = CheckpointFolder(RunFolder(str(run_folder)))
    name = checkpoints.latest(print)
    assert name is not None
    encoder, items = SASRec(model).eval(), torch.empty(num_rows, model.embedding_dim)
    tensors = {f"{ARM}/head/{key}": replicated(tensor) for key, tensor in encoder.state_dict().items()}
    tensors[f"{ARM}/tables/{ITEM_TABLE}/weight"] = replicated(items)
    TensorStore(f"{checkpoints.url}/{name}").read(tensors)
    return encoder, items


if __name__ == "__main__":
    main()
