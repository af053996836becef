"""What the ranks of the tests of plans run: planning on machines that differ."""

from typing import Any

import pytest
import torch
import torch.distributed as dist

from raysparse.data.schema import DenseFeature, IdFeature, Schema
from raysparse.errors import PlanError
from raysparse.models import build_model
from raysparse.models.dlrm import DLRMConfig
from raysparse.sharding import plan
from raysparse.sharding.optimizer import SparseSGDConfig
from raysparse.sharding.plan import GIB, ShardingConfig, agree_topology, build_sharder, describe_plan, make_plan

CPU = torch.device("cpu")
# 1.5 GiB of weights; models are made without memory.
SCHEMA = Schema(dense=(DenseFeature(name="x"),), ids=(IdFeature(name="a", rows=50_000_000),))


def plan_on_uneven_machines(gib: tuple[int, ...], expected: tuple[int, str]) -> None:
    """Plan as two workers of a machine and one of another, each with its GiB; `expected`: bytes, kind of sharding."""
    bytes_of_machine = gib[dist.get_rank()] * GIB
    plan.available_bytes = lambda: bytes_of_machine
    topology = agree_topology((2, 2, 1)[dist.get_rank()], CPU, ShardingConfig())
    model = build_model(DLRMConfig(embedding_dim=8), SCHEMA, seed=1)
    made = make_plan(model, build_sharder(model, SparseSGDConfig()), ShardingConfig(), topology)
    (line,) = describe_plan(model, made, lambda width: 0)
    found = (topology.devices[0].storage.ddr, topology.local_world_size, line)
    of_all: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(of_all, found)
    assert of_all == [found] * dist.get_world_size()
    assert (found[0], line.sharding) == expected
    assert topology.local_world_size == 1


def fail_together() -> None:
    """One rank cannot read its memory; the others must not wait for it."""
    plan.available_bytes = lambda: None if dist.get_rank() == 1 else GIB
    with pytest.raises(PlanError, match="cannot be read; set sharding.memory_per_worker_gib"):
        agree_topology(1, CPU, ShardingConfig())
