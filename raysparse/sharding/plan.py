"""Which rank holds which part of which table."""

import math
from collections.abc import Callable
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from pydantic import Field
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
from torchrec.distributed.planner.types import ParameterConstraints, PlannerError
from torchrec.distributed.types import EmbeddingModuleShardingPlan, ModuleSharder, ShardingPlan, ShardingType

from raysparse.config import Config
from raysparse.errors import ConfigError, PlanError
from raysparse.models import AnyRecommender, Recommender, SequenceRecommender
from raysparse.sharding.machine import available_bytes
from raysparse.sharding.optimizer import SparseOptimizerConfig, fused_parameters

ShardingKind = Literal["table_wise", "row_wise", "column_wise", "data_parallel"]

GIB = 2**30

_UNKNOWN = -1
"""Stands for a worker's memory that cannot be read: less than any other."""


class TableShardingConfig(Config):
    """How one table is to be sharded."""

    kind: ShardingKind
    """table_wise: whole on one rank; row_wise: rows over all ranks, each of which has to get some; column_wise:
    columns over ranks; data_parallel: a copy on every rank."""
    column_width: int | None = Field(default=None, ge=4, multiple_of=4)
    """Columns of one shard of a column-wise table; default half of the table's width."""


class ShardingConfig(Config):
    """What the planner may choose."""

    default: ShardingKind | Literal["auto"] = "auto"
    """Sharding of the tables not named below; auto: table-wise or row-wise, which give the same numbers
    (column-wise changes what row-wise Adagrad computes, so it is only taken when named). A table with too few
    rows for a share on every rank is table-wise even where the default is row-wise. On GPUs TorchRec's planner
    chooses; on the CPU, which it cannot estimate, row-wise is only for tables that fit in no other way, and for the one
    table of a sequence model."""
    tables: dict[str, TableShardingConfig] = {}
    """Sharding of single tables, by name."""
    memory_per_worker_gib: float | None = Field(default=None, gt=0)
    """Memory that tables and optimizer state may take on a worker; default: the GPU's memory, or its share of
    what is free on the machine (of a container: within its limit), as the worker with the least has it."""


class PlannedTable(Config):
    """A line of the sharding table."""

    table: str
    features: tuple[str, ...]
    rows: int
    dim: int
    bytes: int
    """Weights, float32, over all ranks (a data-parallel table counts once per rank)."""
    optimizer_bytes: int
    sharding: str
    kernel: str
    ranks: tuple[int, ...]


class TableSharder(EmbeddingBagCollectionSharder):
    """TorchRec's sharder of pooled tables, which refuses row-wise ones on the CPU although they work there."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        """Kinds of sharding that may be planned."""
        return [ShardingType[kind.upper()].value for kind in ("table_wise", "row_wise", "column_wise", "data_parallel")]


class SequenceTableSharder(EmbeddingCollectionSharder):
    """TorchRec's sharder of tables that are looked up item by item; its copied ones give a row per sequence (1.8)."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        """Kinds of sharding that may be planned."""
        return [ShardingType[kind.upper()].value for kind in ("table_wise", "row_wise", "column_wise")]


Sharder = TableSharder | SequenceTableSharder


def build_sharder(model: AnyRecommender, config: SparseOptimizerConfig) -> Sharder:
    """Make the sharder of a model's kind of tables, which learn as `config` says."""
    kind = TableSharder if isinstance(model, Recommender) else SequenceTableSharder
    return kind(fused_params=fused_parameters(config))


def make_plan(
    model: AnyRecommender,
    sharder: Sharder,
    config: ShardingConfig,
    topology: Topology,
    *,
    fused: bool = True,
) -> ShardingPlan:
    """Plan the tables; the same on every rank that has the same topology, so that a failure ends all of them at once.

    `fused`: whether the optimizer is part of the kernels (see `optimizer.is_fused`).
    Raises PlanError where the tables do not fit or cannot be sharded as asked, ConfigError where a table that
    is named does not exist.
    """
    both: list[ShardingKind] = ["table_wise", "row_wise"]
    attempts: list[list[ShardingKind]] = [both] if topology.compute_device == "cuda" else [["table_wise"], both]
    if isinstance(model, SequenceRecommender):
        _refuse_copies(config)
        if topology.world_size > 1:
            attempts = [["row_wise"]]  # its one table lies on all ranks, which then share the scoring
    plan: ShardingPlan | None = None
    fault: Exception | None = None
    for automatic in attempts:
        constraints = _constraints(model, config, automatic, topology.world_size)
        planner = EmbeddingShardingPlanner(topology=topology, constraints=constraints)
        try:
            plan = planner.plan(model, [cast("ModuleSharder[torch.nn.Module]", sharder)])
            break
        except (PlannerError, RuntimeError) as error:
            fault = error
    if plan is None:
        assert fault is not None
        raise PlanError(_explain(model, topology, fault)) from fault
    if not fused:
        # The planner knows the unfused kernel for copied tables only; it works for all.
        for sharding in cast(EmbeddingModuleShardingPlan, plan.plan["tables"]).values():
            sharding.compute_kernel = EmbeddingComputeKernel.DENSE.value
    return plan


def agree_topology(local_world_size: int, device: torch.device, config: ShardingConfig) -> Topology:
    """The machines as the planner sees them, each worker like the one with the least; all ranks together.

    `local_world_size` is the number of ranks on this machine. PlanError, on all ranks, where one of them cannot read
    its machine's memory.
    """
    least = torch.tensor([local_world_size, _worker_bytes(local_world_size, device, config)], device=device)
    # What a rank sees is its own machine, at its own moment; with other numbers it would make another plan.
    dist.all_reduce(least, dist.ReduceOp.MIN)
    smallest_world_size, memory = least.tolist()
    if memory == _UNKNOWN:
        raise PlanError("the memory of a worker's machine cannot be read; set sharding.memory_per_worker_gib")
    return topology_of(dist.get_world_size(), smallest_world_size, device, memory)


def topology_of(world_size: int, local_world_size: int, device: torch.device, memory: int) -> Topology:
    """`world_size` workers, `local_world_size` per machine, each with `memory` bytes, as the planner sees them."""
    if device.type == "cuda":
        return Topology(world_size, "cuda", hbm_cap=memory, local_world_size=local_world_size)
    return Topology(world_size, "cpu", ddr_cap=memory, local_world_size=local_world_size)


def describe_plan(
    model: AnyRecommender, plan: ShardingPlan, state_bytes_per_row: Callable[[int], int]
) -> list[PlannedTable]:
    """The plan as a person reads it, a line per table in the order of the schema.

    `state_bytes_per_row` gives the bytes of optimizer state of a row, from the width of its column shard.
    """
    tables = cast(EmbeddingModuleShardingPlan, plan.plan["tables"])
    lines: list[PlannedTable] = []
    for config in model.table_configs:
        sharding = tables[config.name]
        spec = sharding.sharding_spec
        shards: list[Any] = getattr(spec, "shards", None) or []
        sizes = [shard.shard_sizes for shard in shards] or [
            [config.num_embeddings, config.embedding_dim] for _ in sharding.ranks or []
        ]
        lines.append(
            PlannedTable(
                table=config.name,
                features=tuple(config.feature_names),
                rows=config.num_embeddings,
                dim=config.embedding_dim,
                bytes=sum(4 * rows * columns for rows, columns in sizes),
                optimizer_bytes=sum(rows * state_bytes_per_row(columns) for rows, columns in sizes),
                sharding=sharding.sharding_type,
                kernel=sharding.compute_kernel,
                ranks=tuple(dict.fromkeys(sharding.ranks or [])),
            )
        )
    return lines


def _refuse_copies(config: ShardingConfig) -> None:
    for key, kind in (("default", config.default), *((f"tables.{n}.kind", t.kind) for n, t in config.tables.items())):
        if kind == "data_parallel":
            raise ConfigError(
                f"sharding.{key}: found 'data_parallel', which TorchRec (1.8) looks up by sequence, not by item; "
                "allowed for a sequence model: 'auto', 'table_wise', 'row_wise', 'column_wise'"
            )


def _half(width: int) -> int:
    """Return the widest shard of up to half of a table's columns that divides them, a multiple of 4."""
    return next((half for half in range(width // 2 // 4 * 4, 4, -4) if width % half == 0), 4)


def _constraints(
    model: AnyRecommender, config: ShardingConfig, automatic: list[ShardingKind], world_size: int
) -> dict[str, ParameterConstraints]:
    tables = {table.name: table for table in model.table_configs}
    unknown = sorted(set(config.tables) - set(tables))
    if unknown:
        raise ConfigError(f"sharding.tables names {', '.join(unknown)}; the tables are {', '.join(tables)}")
    constraints: dict[str, ParameterConstraints] = {}
    for name, table in tables.items():
        chosen = config.tables.get(name)
        kind = chosen.kind if chosen is not None else config.default
        width = chosen.column_width if chosen is not None else None
        width = width if width is not None else _half(table.embedding_dim)
        if kind == "column_wise" and table.embedding_dim % width:
            raise ConfigError(
                f"sharding.tables.{name}.column_width: found {width}; allowed: a multiple of 4 that divides "
                f"the table's width {table.embedding_dim}"
            )
        kinds = automatic if kind == "auto" else [kind]
        if "row_wise" in kinds and _leaves_a_rank_empty(table.num_embeddings, world_size):
            if chosen is not None:
                raise ConfigError(
                    f"sharding.tables.{name}.kind: found 'row_wise', but {table.num_embeddings} rows do not give each "
                    f"of {world_size} workers a share; allowed: 'table_wise', 'column_wise', 'data_parallel'"
                )
            kinds = ["table_wise"]
        copied = kinds == ["data_parallel"]
        kernel = EmbeddingComputeKernel.DENSE if copied else EmbeddingComputeKernel.FUSED
        constraints[name] = ParameterConstraints(
            sharding_types=[ShardingType[kind.upper()].value for kind in kinds],
            compute_kernels=[kernel.value],
            min_partition=width if kind == "column_wise" else None,
        )
    return constraints


def _leaves_a_rank_empty(rows: int, world_size: int) -> bool:
    """Whether row-wise shards of equal size use up the rows before the last rank.

    FBGEMM's CPU kernel fails on an empty shard now and then ("more than 2B rows").
    """
    return (world_size - 1) * math.ceil(rows / world_size) >= rows


def _explain(model: AnyRecommender, topology: Topology, error: Exception) -> str:
    device = topology.devices[0].storage
    available = device.hbm if topology.compute_device == "cuda" else device.ddr
    tables = sorted(model.table_configs, key=lambda t: -t.num_embeddings * t.embedding_dim)
    needed = sum(4 * table.num_embeddings * table.embedding_dim for table in tables)
    largest = ", ".join(
        f"{table.name} ({4 * table.num_embeddings * table.embedding_dim / GIB:.2f} GiB)" for table in tables[:3]
    )
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return (
        f"no sharding plan: the tables take {needed / GIB:.2f} GiB and their optimizer state more; "
        f"{topology.world_size} workers offer {available / GIB:.2f} GiB each, of which the planner keeps a part in "
        f"reserve; largest: {largest}. Change scaling.num_workers, sharding.memory_per_worker_gib, "
        f"sharding.default, or the tables' rows. The planner says: {reason}"
    )


def _worker_bytes(local_world_size: int, device: torch.device, config: ShardingConfig) -> int:
    """Bytes that a worker of this machine may take; `_UNKNOWN` where they cannot be read."""
    if config.memory_per_worker_gib is not None:
        return int(config.memory_per_worker_gib * GIB)
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    available = available_bytes()
    return available // local_world_size if available is not None else _UNKNOWN
