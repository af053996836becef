import pytest
import torch

from raysparse.data.schema import sequence_schema
from raysparse.errors import ConfigError, PlanError
from raysparse.models import build_model
from raysparse.models.dlrm import DLRMConfig
from raysparse.models.sasrec.config import SASRecConfig
from raysparse.sharding.optimizer import (
    RowWiseAdagradConfig,
    SparseAdamConfig,
    SparseSGDConfig,
    fused_parameters,
    state_bytes_per_row,
)
from raysparse.sharding.plan import (
    GIB,
    PlannedTable,
    ShardingConfig,
    TableSharder,
    _half,
    agree_topology,
    build_sharder,
    describe_plan,
    make_plan,
    topology_of,
)
from tests.gloo import run_ranks
from tests.sharding.machines import fail_together, plan_on_uneven_machines
from tests.sharding.ranks import SCHEMA

CPU = torch.device("cpu")


def plan_of(world_size: int, memory: int = GIB, **config: object) -> dict[str, PlannedTable]:
    sharding = ShardingConfig.model_validate_json(ShardingConfig.model_validate(config, strict=False).model_dump_json())
    model = build_model(DLRMConfig(embedding_dim=8), SCHEMA, seed=1)
    sparse = RowWiseAdagradConfig()
    sharder = TableSharder(fused_params=fused_parameters(sparse))
    plan = make_plan(model, sharder, sharding, topology_of(world_size, world_size, CPU, memory))
    return {line.table: line for line in describe_plan(model, plan, lambda width: state_bytes_per_row(sparse, width))}


def test_by_default_tables_stay_whole_on_a_cpu():
    lines = plan_of(2)
    assert {line.sharding for line in lines.values()} == {"table_wise"}
    assert lines["a"].features == ("a", "b")
    assert lines["a"].bytes == 41 * 8 * 4
    assert lines["a"].optimizer_bytes == 41 * 4
    assert {rank for line in lines.values() for rank in line.ranks} == {0, 1}


def test_a_table_follows_what_the_job_says_of_it():
    lines = plan_of(2, default="row_wise", tables={"c": {"kind": "column_wise", "column_width": 4}})
    assert (lines["a"].sharding, lines["a"].ranks) == ("row_wise", (0, 1))
    assert lines["c"].sharding == "column_wise"
    assert lines["c"].optimizer_bytes == 2 * 30 * 4
    copied = plan_of(2, default="data_parallel")["a"]
    assert (copied.sharding, copied.kernel, copied.bytes) == ("data_parallel", "dense", 2 * 41 * 8 * 4)


@pytest.mark.parametrize(("width", "half"), [(8, 4), (20, 4), (24, 12), (28, 4), (36, 12), (64, 32), (4, 4)])
def test_by_itself_a_table_is_cut_into_columns_that_divide_it(width: int, half: int):
    assert _half(width) == half
    assert width % half == 0


def test_a_table_with_too_few_rows_for_all_ranks_stays_whole():
    # Shards of one row: three ranks have one each, the fourth would have none.
    assert plan_of(3, default="row_wise")["d"].sharding == "row_wise"
    assert plan_of(4, default="row_wise")["d"].sharding == "table_wise"
    with pytest.raises(ConfigError, match="3 rows do not give each of 4 workers a share"):
        plan_of(4, tables={"d": {"kind": "row_wise"}})


@pytest.mark.parametrize(
    ("tables", "reason"),
    [
        ({"z": {"kind": "row_wise"}}, "names z; the tables are a, c, d"),
        ({"a": {"kind": "column_wise", "column_width": 12}}, "found 12; allowed: a multiple of 4 that divides"),
    ],
)
def test_a_table_that_is_not_there_or_cannot_be_cut_is_refused(tables: dict[str, object], reason: str):
    with pytest.raises(ConfigError, match=reason):
        plan_of(2, tables=tables)


def test_a_plan_that_does_not_fit_says_what_to_change():
    with pytest.raises(PlanError, match=r"largest: a \(0.00 GiB\).*Change scaling.num_workers, sharding.memory"):
        plan_of(2, memory=100)


def test_state_takes_a_number_per_row_or_per_weight():
    assert state_bytes_per_row(RowWiseAdagradConfig(), 16) == 4
    assert state_bytes_per_row(SparseAdamConfig(), 16) == 2 * 16 * 4


def test_the_table_of_a_sequence_model_lies_on_all_ranks_and_is_not_copied():
    model = build_model(SASRecConfig(), sequence_schema(100), 1)
    sparse = SparseSGDConfig()
    for world_size, expected in ((1, "table_wise"), (3, "row_wise")):
        topology = topology_of(world_size, world_size, CPU, GIB)
        plan = make_plan(model, build_sharder(model, sparse), ShardingConfig(), topology)
        (line,) = describe_plan(model, plan, lambda width: state_bytes_per_row(sparse, width))
        assert (line.sharding, line.ranks) == (expected, tuple(range(world_size)))
    for tree in ({"default": "data_parallel"}, {"tables": {"item": {"kind": "data_parallel"}}}):
        config = ShardingConfig.model_validate(tree)
        with pytest.raises(ConfigError, match=r"sharding\..*: found 'data_parallel', which TorchRec"):
            make_plan(model, build_sharder(model, sparse), config, topology_of(2, 2, CPU, GIB))


@pytest.mark.multi
@pytest.mark.parametrize(
    ("gib", "expected"), [((8, 8, 4), (4 * GIB, "table_wise")), ((8, 8, 1), (GIB, "row_wise"))], ids=str
)
def test_workers_of_uneven_machines_make_one_plan(gib: tuple[int, ...], expected: tuple[int, str]):
    run_ranks(3, plan_on_uneven_machines, gib, expected)


@pytest.mark.multi
def test_where_one_worker_cannot_read_its_memory_all_say_so():
    run_ranks(2, fail_together)


def test_memory_of_a_worker_is_what_the_job_says(one_rank: None):
    topology = agree_topology(1, CPU, ShardingConfig(memory_per_worker_gib=0.5))
    assert topology.devices[0].storage.ddr == GIB // 2
