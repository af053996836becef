"""What the ranks of the sharding tests run."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from raysparse.config import check
from raysparse.data.batch import Batch
from raysparse.data.schema import DenseFeature, IdFeature, Schema
from raysparse.job import OptimizerConfig
from raysparse.models import build_model
from raysparse.models.dlrm import DLRMConfig
from raysparse.sharding.model import ShardedModel
from raysparse.sharding.optimizer import fused_parameters, is_fused
from raysparse.sharding.plan import ShardingConfig, TableSharder, agree_topology, make_plan
from raysparse.train import tensor_store
from raysparse.train.tensor_store import TensorStore, save_tensors

KINDS = ("table_wise", "row_wise", "column_wise", "data_parallel")
OPTIMIZERS = ("rowwise_adagrad", "adagrad", "adam", "sgd")
CPU = torch.device("cpu")
ROWS = 48
STEPS = 4

# Two features share a table, one is multi-valued, and a table has fewer rows than some plans have ranks.
SCHEMA = Schema(
    dense=(DenseFeature(name="x"),),
    ids=(
        IdFeature(name="a", rows=41),
        IdFeature(name="b", rows=41, table="a"),
        IdFeature(name="c", rows=30, multi_valued=True),
        IdFeature(name="d", rows=3),
    ),
)


def build(kind: str, optimizer: str, seed: int = 1, **sparse: float) -> ShardedModel:
    tree = {"sparse": {"kind": optimizer, "learning_rate": 0.1, **sparse}, "dense": {"learning_rate": 0.01}}
    optimizers = check(OptimizerConfig, tree, "test")
    model = build_model(DLRMConfig(embedding_dim=8, bottom=(8,), top=(16,)), SCHEMA, seed)
    sharder = TableSharder(fused_params=fused_parameters(optimizers.sparse))
    config = ShardingConfig.model_validate({"default": kind})
    topology = agree_topology(dist.get_world_size(), CPU, config)
    plan = make_plan(model, sharder, config, topology, fused=is_fused(optimizers.sparse, CPU))
    sharded = ShardedModel(model, plan, sharder, CPU, (optimizers.sparse, optimizers.dense))
    sharded.tables.initialize(seed)
    return sharded


def batch(seed: int) -> Batch:
    """This rank's rows of a batch of 48; every number of ranks to 4 divides it."""
    generator = np.random.default_rng(seed)
    dense = torch.from_numpy(generator.random((ROWS, 1), dtype=np.float32))
    labels = torch.from_numpy(generator.integers(0, 2, ROWS).astype(np.float32))
    lists = [
        [generator.integers(0, feature.rows, row % 3 if feature.multi_valued else 1) for row in range(ROWS)]
        for feature in SCHEMA.ids
    ]
    size = ROWS // dist.get_world_size()
    mine = slice(dist.get_rank() * size, (dist.get_rank() + 1) * size)
    lengths = torch.tensor([len(ids) for column in lists for ids in column[mine]])
    values = torch.from_numpy(np.concatenate([ids for column in lists for ids in column[mine]]))
    ids = KeyedJaggedTensor([feature.name for feature in SCHEMA.ids], values, lengths=lengths)
    return Batch(dense[mine], ids, labels[mine], torch.ones(size), 0, ROWS)


def train(model: ShardedModel, first: int, last: int) -> None:
    for step in range(first, last):
        rows = batch(step)
        loss = binary_cross_entropy_with_logits(model.forward(rows), rows.labels, reduction="sum")
        model.step(loss * dist.get_world_size() / ROWS, step + 1)


def logits(model: ShardedModel) -> Tensor:
    """Logits of a batch that no one trained on, of all ranks."""
    with torch.no_grad():
        mine = model.forward(batch(999))
    parts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, mine)
    return torch.cat(parts)


def save_all(folder: Path, combinations: list[tuple[str, str]]) -> None:
    """Train, save and train on, for each (sharding, optimizer)."""
    for kind, optimizer in combinations:
        model = build(kind, optimizer)
        first = logits(model)
        train(model, 0, STEPS)
        path = folder / f"{kind}-{optimizer}"
        save_tensors(str(path), model.state())
        saved = logits(model)
        train(model, STEPS, 2 * STEPS)
        after = logits(model)
        if dist.get_rank() == 0:
            expected = {"first": first, "saved": saved, "after": after, "bounds": model.tables.column_bounds}
            torch.save(expected, folder / f"{kind}-{optimizer}.pt")


def clipped(kind: str, optimizer: str, clip_value: float = 1e-4) -> Tensor:
    """Logits after steps with clipped gradients, large enough that the clipping tells."""
    model = build(kind, optimizer, learning_rate=100.0 if optimizer == "sgd" else 0.1, clip_value=clip_value)
    train(model, 0, STEPS)
    return logits(model)


def write_clipped(folder: Path, combinations: list[tuple[str, str]]) -> None:
    for kind, optimizer in combinations:
        found = clipped(kind, optimizer)
        if dist.get_rank() == 0:
            torch.save(found, folder / f"{kind}-{optimizer}.pt")


def save_in_small_files(folder: Path, combinations: list[tuple[str, str]]) -> None:
    """As `save_all`, with files of so few bytes that tables are cut into several."""
    tensor_store._BYTES_PER_FILE = 300
    save_all(folder, combinations)


def load_all(folder: Path, combinations: list[tuple[str, str]], kinds: tuple[str, ...]) -> None:
    """Load what `save_all` saved under each of `kinds`, compare, and train on."""
    for saved_kind, optimizer in combinations:
        expected: dict[str, Any] = torch.load(folder / f"{saved_kind}-{optimizer}.pt")
        for kind in kinds:
            model = build(kind, optimizer, seed=7)
            store = TensorStore(str(folder / f"{saved_kind}-{optimizer}"))
            model.load(store.read, store.shapes, expected["bounds"])
            where = f"{optimizer}: {saved_kind} to {kind} on {dist.get_world_size()} ranks"
            difference = (logits(model) - expected["saved"]).abs().max().item()
            assert difference < 1e-6, f"{where}: {difference} after loading"
            train(model, STEPS, 2 * STEPS)
            difference = (logits(model) - expected["after"]).abs().max().item()
            # Column-wise row-wise Adagrad has a sum per column shard: another optimizer than with whole rows.
            recut = optimizer == "rowwise_adagrad" and (kind == "column_wise") != (saved_kind == "column_wise")
            assert difference < (0.05 if recut else 1e-5), f"{where}: {difference} after training on"
            assert (logits(model) - expected["saved"]).abs().max() > 1e-4, f"{where}: did not train"


def all_start_equal(folder: Path) -> None:
    """First weights follow from the seed, not from the plan."""
    expected = torch.load(folder / "table_wise-sgd.pt")["first"]
    for kind in KINDS:
        torch.testing.assert_close(logits(build(kind, "sgd")), expected, rtol=0, atol=1e-6)
