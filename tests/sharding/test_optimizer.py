from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from raysparse.config import check
from raysparse.job import OptimizerConfig
from raysparse.models import build_model
from raysparse.models.dlrm import DLRMConfig
from raysparse.sharding.model import ShardedModel
from raysparse.sharding.optimizer import SparseAdamConfig, UnfusedTableOptimizer, fused_parameters
from raysparse.sharding.plan import ShardingConfig, TableSharder, agree_topology, make_plan
from raysparse.sharding.tables import ShardedTables
from tests.gloo import run_ranks
from tests.sharding.ranks import CPU, KINDS, ROWS, SCHEMA, batch, clipped, write_clipped

CLIP = 1e-5


def one_step(tree: dict[str, dict[str, float]], kind: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return tables and head before and after a step of plain gradient descent with step size 1."""
    descent = {"kind": "sgd", "learning_rate": 1.0}
    both = {key: {**descent, **tree.get(key, {})} for key in ("sparse", "dense")}
    optimizers = check(OptimizerConfig, both, "test")
    model = build_model(DLRMConfig(embedding_dim=8, bottom=(8,), top=(16,)), SCHEMA, seed=1)
    sharder = TableSharder(fused_params=fused_parameters(optimizers.sparse))
    config = ShardingConfig.model_validate({"default": kind})
    plan = make_plan(model, sharder, config, agree_topology(1, CPU, config))
    sharded = ShardedModel(model, plan, sharder, CPU, (optimizers.sparse, optimizers.dense))
    sharded.tables.initialize(1)
    before = {name: tensor.pieces[0].tensor.clone() for name, tensor in sharded.state().items()}
    rows = batch(0)
    loss = binary_cross_entropy_with_logits(sharded.forward(rows), rows.labels, reduction="sum") / ROWS
    sharded.step(loss, 1)
    return before, {name: tensor.pieces[0].tensor for name, tensor in sharded.state().items()}


def largest_change(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor], prefix: str) -> float:
    return max((after[name] - before[name]).abs().max().item() for name in before if name.startswith(prefix))


@pytest.mark.parametrize("kind", ["table_wise", "data_parallel"])
def test_table_gradients_are_clipped_by_value(one_rank: None, kind: str):
    free = largest_change(*one_step({}, kind), "tables/")
    clipped = largest_change(*one_step({"sparse": {"clip_value": CLIP}}, kind), "tables/")
    assert free > ROWS * CLIP
    # A row gets at most as many clipped gradients as it is looked up.
    assert 0 < clipped <= 2 * ROWS * CLIP * 1.001
    assert clipped < free


@pytest.mark.multi
def test_what_is_clipped_does_not_depend_on_the_plan_or_the_number_of_ranks(tmp_path: Path, one_rank: None):
    combinations = [(kind, optimizer) for optimizer in ("sgd", "adam") for kind in KINDS]
    run_ranks(2, write_clipped, tmp_path, combinations)
    for optimizer in ("sgd", "adam"):
        expected = clipped("table_wise", optimizer)
        assert (clipped("table_wise", optimizer, clip_value=1.0) - expected).abs().max() > 0.01
        for kind in KINDS:
            for found in (clipped(kind, optimizer), torch.load(tmp_path / f"{kind}-{optimizer}.pt")):
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_head_gradients_are_clipped_by_their_common_norm(one_rank: None):
    before, after = one_step({"dense": {"clip_norm": CLIP}}, "table_wise")
    changes = [(after[name] - before[name]).flatten() for name in before if name.startswith("head/")]
    assert torch.cat(changes).norm().item() == pytest.approx(CLIP, rel=1e-3)
    before, after = one_step({}, "table_wise")
    changes = [(after[name] - before[name]).flatten() for name in before if name.startswith("head/")]
    assert torch.cat(changes).norm().item() > 100 * CLIP


def test_unfused_adam_is_adam_on_the_rows_of_the_batch_and_leaves_the_others():
    weight = torch.randn(4, 3)
    reference = torch.nn.Parameter(weight[:2].clone())
    torch_adam = torch.optim.Adam([reference], lr=0.1)
    ours = UnfusedTableOptimizer(SparseAdamConfig(), weight)
    others = weight[2:].clone()
    for step in range(1, 4):
        gradient = torch.zeros(4, 3)
        gradient[:2] = torch.randn(2, 3)
        reference.grad = gradient[:2].clone()
        torch_adam.step()
        ours.step(gradient, 0.1, step)
    torch.testing.assert_close(weight[:2], reference.detach())
    torch.testing.assert_close(weight[2:], others, rtol=0, atol=0)


@pytest.mark.parametrize(("kind", "told"), [("adam", 7), ("adagrad", 3)])
def test_adams_fused_kernels_count_the_steps_that_they_are_told(kind: str, told: int):
    """Fused Adam needs a GPU: its kernel's two counters stand in for it, which look-ups have moved on."""
    kernel = SimpleNamespace(iter=torch.tensor([3]), iter_cpu=torch.tensor([3]))
    tables: Any = SimpleNamespace(config=SimpleNamespace(kind=kind), _fused=[kernel])
    ShardedTables.set_num_steps(tables, 7)
    assert (int(kernel.iter), int(kernel.iter_cpu)) == (told, told)
