from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from raysparse.data.dataset import Dataset
from raysparse.errors import CheckpointError, ConfigError
from raysparse.models.nasrec.supernet import NASRecSupernetConfig
from raysparse.search import supernet_cache
from raysparse.search.ctr_space import CTRSpace
from raysparse.search.feature_cache import PARTS, FeatureCache
from raysparse.search.scoring import Scorer, ScoringConfig
from raysparse.sharding.global_tensor import replicated
from raysparse.train.checkpoint import CheckpointFolder
from raysparse.train.run_folder import RunFolder
from raysparse.train.tensor_store import TensorStore
from tests.callbacks.supernets import SPACE, head_of, supernet_changes
from tests.data.datasets import PLAIN, write_dataset
from tests.gloo import run_ranks
from tests.search.test_feature_cache import join
from tests.train.ranks import history, job_of, run_job, run_whole

LAST_DAY = "002"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Five days, of which the first three are trained on; most do not divide evenly over ranks."""
    path = tmp_path_factory.mktemp("data") / "set"
    write_dataset(path, PLAIN, [[130], [200, 161], [101], [90, 43], [120]])
    return str(path)


def changes_of(data: str, cache: Path, last_day: str = LAST_DAY, **caching: Any) -> dict[str, Any]:
    callback = {"kind": "feature_cache", "folder": str(cache), **caching}
    return {"data": {"path": data, "batch_size": 64, "last_day": last_day}, **supernet_changes(callback)}


def rows_of(data: str, days: tuple[str, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Dense inputs, labels and ids of some days as the files have them, in the order of their column `number`."""
    dataset = Dataset.open(data)
    files = [dataset.url(file.path) for day in dataset.days if day.day in days for file in day.files]
    tables = [pq.read_table(file) for file in files]
    columns = {
        name: np.concatenate([table[name].to_numpy() for table in tables])
        for name in ("number", "gap", "label", "user", "item")
    }
    missing = np.isnan(columns["gap"])
    dense = np.stack([columns["number"], np.where(missing, 0.0, columns["gap"]), missing], axis=1).astype(np.float32)
    order = columns["number"].argsort()
    ids = np.stack([columns["user"], columns["item"]], axis=1)[order].astype(np.int64)
    return torch.from_numpy(dense[order]), torch.from_numpy(columns["label"][order]).float(), torch.from_numpy(ids)


def final_tables(run_folder: Path) -> list[Tensor]:
    """The tables of the last checkpoint."""
    checkpoints = CheckpointFolder(RunFolder(str(run_folder)))
    store = TensorStore(f"{checkpoints.url}/{checkpoints.steps()[0]}")
    prefix = "trained/tables/"
    shapes = store.shapes(prefix)
    tables = {f"{prefix}{name}/weight": torch.empty(shapes[f"{name}/weight"][0]) for name in ("user", "item")}
    store.read({name: replicated(tensor) for name, tensor in tables.items()})
    return list(tables.values())


@pytest.mark.multi
@pytest.mark.parametrize(("num_ranks", "sharding"), [(1, "table_wise"), (2, "table_wise"), (2, "row_wise")])
def test_the_cache_holds_the_stated_days_looked_up_in_the_final_tables(
    data: str, tmp_path: Path, one_rank: None, num_ranks: int, sharding: str
):
    changes = changes_of(data, tmp_path / "cache", tuning_rows=300, validation_days=2)
    run_ranks(num_ranks, run_whole, data, str(tmp_path / "run"), {**changes, "sharding": {"default": sharding}})
    cache = FeatureCache.open(str(tmp_path / "cache"))
    # 101 rows of the last day, and 199 of the 361 of the one before.
    assert cache.manifest.rows == {"tuning": 300, "validation": 253}
    assert cache.manifest.days == {"tuning": ("002", "001"), "validation": ("003", "004")}
    tables = final_tables(tmp_path / "run")
    for part in PARTS:
        rows = join(cache.rows(part))
        assert rows.numbers.tolist() == list(range(cache.manifest.rows[part]))
        dense, labels, ids = rows_of(data, cache.manifest.days[part])
        # `number` tells the rows of the data set apart.
        place = {number: index for index, number in enumerate(dense[:, 0].tolist())}
        found = [place[number] for number in rows.dense[:, 0].tolist()]
        assert len(set(found)) == len(found)
        assert torch.equal(rows.dense, dense[found])
        assert torch.equal(rows.labels, labels[found])
        assert torch.equal(rows.pooled, torch.stack([table[ids[found, i]] for i, table in enumerate(tables)], dim=1))
        # The first stated day is whole, and comes first.
        day = rows_of(data, cache.manifest.days[part][:1])[0]
        assert rows.dense[: len(day), 0].sort().values.tolist() == day[:, 0].tolist()
    assert len(history(tmp_path / "run")) == 3


def test_the_weights_are_the_runs_and_can_be_scored(data: str, tmp_path: Path, one_rank: None):
    state = run_job(job_of(data, str(tmp_path / "run"), **changes_of(data, tmp_path / "cache")))
    cache = FeatureCache.open(str(tmp_path / "cache"))
    shared = dict(cache.network(torch.device("cpu")).named_parameters())
    network = head_of(state).network
    assert shared.keys() == dict(network.named_parameters()).keys()
    assert all(torch.equal(shared[name], parameter) for name, parameter in network.named_parameters())
    # What the widest path scores on the cached day is what the next day of the run would have shown.
    choice = head_of(state).choices[0]
    longer = run_job(job_of(data, str(tmp_path / "more"), **changes_of(data, tmp_path / "other", last_day="003")))
    score = Scorer(cache, CTRSpace(SPACE, PLAIN), ScoringConfig(tuning_steps=0), seed=1).score(choice)
    assert history(tmp_path / "more")[3]["day"] == "003"
    assert score["log_loss"] == pytest.approx(history(tmp_path / "more")[3]["log_loss"], rel=1e-5)
    assert longer.position.day_index == 4


@pytest.mark.multi
def test_limits_take_the_same_rows_on_any_number_of_ranks(data: str, tmp_path: Path, one_rank: None):
    # Neither is a multiple of the batches' 43 to 51 rows, and the second validation day is not reached.
    limits: dict[str, Any] = {"tuning_rows": 77, "validation_rows": 71, "validation_days": 2}
    for num_ranks in (1, 2, 3):
        folder = tmp_path / str(num_ranks)
        run_ranks(num_ranks, run_whole, data, f"{folder}-run", changes_of(data, folder, **limits))
    one, two, three = (FeatureCache.open(str(tmp_path / str(num_ranks))) for num_ranks in (1, 2, 3))
    for cache in (one, two, three):
        assert cache.manifest.rows == {"tuning": 77, "validation": 71}
        assert cache.manifest.days == {"tuning": ("002",), "validation": ("003",)}
        for part in ("tuning", "validation"):
            expected, rows = join(one.rows(part)), join(cache.rows(part))
            assert torch.equal(rows.numbers, expected.numbers)
            assert torch.equal(rows.dense, expected.dense)
            assert torch.equal(rows.labels, expected.labels)


def test_no_rows_to_tune_on_are_none(data: str, tmp_path: Path, one_rank: None):
    run_job(job_of(data, str(tmp_path / "run"), **changes_of(data, tmp_path / "cache", tuning_rows=0)))
    manifest = FeatureCache.open(str(tmp_path / "cache")).manifest
    assert manifest.rows == {"tuning": 0, "validation": 133}
    assert manifest.days["tuning"] == ()


def test_the_manifest_comes_last_and_a_killed_run_writes_the_cache_anew(
    data: str, tmp_path: Path, one_rank: None, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "cache"
    job = job_of(data, str(tmp_path / "run"), **changes_of(data, folder))
    run_job(job)
    before = FeatureCache.open(str(folder)).manifest

    def fail(*_: Any) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(supernet_cache, "save_file", fail)
        with pytest.raises(OSError, match="no space left"):
            run_job(job)
    # All rows are there, and no manifest, not even the old one.
    assert len(list((folder / "validation").iterdir())) == 4
    with pytest.raises(CheckpointError, match="its cache was not finished"):
        FeatureCache.open(str(folder))
    run_job(job)
    assert FeatureCache.open(str(folder)).manifest == before


def test_days_beyond_the_data_set_are_refused_before_anything_is_trained(data: str, tmp_path: Path, one_rank: None):
    job = job_of(data, str(tmp_path / "run"), **changes_of(data, tmp_path / "cache", validation_days=3))
    expected = r"validation_days of the callback feature_cache: found 3; after the run's last day, 002, .* has 2 more"
    with pytest.raises(ConfigError, match=expected):
        run_job(job)
    assert not (tmp_path / "run" / "history.jsonl").exists()
    assert not (tmp_path / "cache").exists()


def test_the_manifest_names_the_space(data: str, tmp_path: Path, one_rank: None):
    run_job(job_of(data, str(tmp_path / "run"), **changes_of(data, tmp_path / "cache")))
    manifest = FeatureCache.open(str(tmp_path / "cache")).manifest
    assert NASRecSupernetConfig(space=manifest.space).embedding_dim == 8
    assert (manifest.space, manifest.num_dense, manifest.num_features) == (SPACE, 3, 2)
