from pathlib import Path

import pytest

from tests.gloo import run_ranks
from tests.sharding.ranks import KINDS, OPTIMIZERS, all_start_equal, load_all, save_all, save_in_small_files

pytestmark = pytest.mark.multi

ALL_KINDS = [(kind, "rowwise_adagrad") for kind in KINDS]
ALL_OPTIMIZERS = [(kind, name) for name in OPTIMIZERS[1:] for kind in ("table_wise", "data_parallel")]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of two ranks."""
    folder = tmp_path_factory.mktemp("saved")
    run_ranks(2, save_all, folder, ALL_KINDS + ALL_OPTIMIZERS)
    return folder


@pytest.mark.parametrize("world_size", [1, 3, 4])
def test_two_ranks_load_into_any_number_under_every_sharding(saved: Path, world_size: int):
    run_ranks(world_size, load_all, saved, ALL_KINDS, KINDS)


def test_every_optimizer_goes_on_where_it_was_under_another_plan(saved: Path):
    run_ranks(1, load_all, saved, ALL_OPTIMIZERS, ("row_wise", "column_wise", "data_parallel"))


@pytest.mark.parametrize("world_size", [1, 3])
def test_the_first_weights_do_not_depend_on_the_plan(saved: Path, world_size: int):
    run_ranks(world_size, all_start_equal, saved)


def test_nothing_in_a_checkpoint_is_pickled(saved: Path):
    files = sorted(path.name for path in (saved / "row_wise-rowwise_adagrad").iterdir())
    assert files == ["rank-00000.safetensors", "rank-00001.safetensors", "tensors.json"]


@pytest.mark.parametrize("world_size", [1, 3])
def test_tables_that_are_cut_into_files_come_back_whole(tmp_path: Path, world_size: int):
    combinations = [("row_wise", "adam"), ("column_wise", "rowwise_adagrad"), ("table_wise", "adagrad")]
    run_ranks(2, save_in_small_files, tmp_path, combinations)
    for kind, optimizer in combinations:
        files = list((tmp_path / f"{kind}-{optimizer}").glob("rank-*.safetensors"))
        assert len(files) > 10
        assert max(path.stat().st_size for path in files) < 2_000  # the head's matrices, which are not cut by columns
    run_ranks(world_size, load_all, tmp_path, combinations, ("row_wise", "column_wise"))
