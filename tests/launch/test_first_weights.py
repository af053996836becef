from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from raysparse.data.batch import Batch
from raysparse.data.dataset import Dataset
from raysparse.data.stream import DayStream
from raysparse.errors import CheckpointError, ConfigError
from raysparse.job import TrainJob, dump_job
from raysparse.launch.arms import ArmBuilder
from raysparse.launch.first_weights import check_source, take_first_weights
from raysparse.models.nasrec.canonical import canonical
from raysparse.models.nasrec.choice import NASRecConfig
from raysparse.models.nasrec.menu import CTRSpaceConfig
from raysparse.search.ctr_space import CTRSpace
from raysparse.sharding.model import ShardedModel
from raysparse.train.run_folder import JOB
from tests.callbacks.supernets import head_of
from tests.data.datasets import PLAIN, RENAMED, write_dataset
from tests.train.ranks import job_of, run_job

pytestmark = pytest.mark.usefixtures("one_rank")

WIDE = CTRSpaceConfig(menu="wide", num_blocks=3, dense_widths=(4, 8), token_counts=(4, 8), embedding_dim=8)
OPTIMIZER = {
    "sparse": {"kind": "rowwise_adagrad", "learning_rate": 0.1},
    "dense": {"kind": "adagrad", "learning_rate": 0.05, "eps": 1e-2},
}
SUPERNET: dict[str, Any] = {
    "model": {"kind": "nasrec_supernet", "space": WIDE.model_dump(mode="json")},
    "callbacks": [{"kind": "path_sampling"}],
    "optimizer": OPTIMIZER,
}


@pytest.fixture
def data(tmp_path: Path) -> str:
    return write_dataset(tmp_path / "set", PLAIN, [[300]] * 2).path


def trained(job: TrainJob) -> Any:
    """Run a job, and leave beside its checkpoints what a driver leaves."""
    state = run_job(job)
    Path(job.run_folder, JOB).write_text(dump_job(job))
    return state


def built(job: TrainJob) -> ShardedModel:
    builder = ArmBuilder(job, Dataset.open(job.data.path), torch.device("cpu"), 1)
    model = builder("trained", trains=True).model
    assert isinstance(model, ShardedModel)
    return model


def first_batch(job: TrainJob) -> Batch:
    dataset = Dataset.open(job.data.path)
    return next(iter(DayStream(dataset, job.data, 0).batches(dataset.days[1])))


def choices(data: str, count: int) -> list[NASRecConfig]:
    space = CTRSpace(WIDE, Dataset.open(data).schema)
    return [space.sample(Random(f"first_weights/{number}")) for number in range(count)]


def test_a_network_takes_its_part_of_a_supernet_and_predicts_what_it_did_there(data: str, tmp_path: Path):
    state = trained(job_of(data, str(tmp_path / "supernet"), **SUPERNET))
    schema = Dataset.open(data).schema
    narrow = 0
    for choice in choices(data, 12):
        head_of(state).choices = (choice,)
        batch = first_batch(job_of(data, "x"))  # what is predicted for a batch is kept
        with torch.no_grad():
            expected = state.arms[0].model.forward(batch)
        start_from = {"run_folder": str(tmp_path / "supernet"), "drawn": choice.model_dump(mode="json")}
        model = canonical(choice).model_dump(mode="json")
        job = job_of(data, "y", model=model, optimizer=OPTIMIZER, callbacks=[], start_from=start_from)
        check_source(job, schema, pytest.fail)
        alone = built(job)
        narrow += any(shard.weight.shape[1] < WIDE.embedding_dim for shard in alone.tables.shards)
        take_first_weights(job, schema, alone)
        with torch.no_grad():
            torch.testing.assert_close(alone.forward(batch), expected, rtol=1e-5, atol=1e-5)
        assert all(shard.states["row_sum"].any() for shard in alone.tables.shards)
    assert narrow > 0


def test_the_same_model_goes_on_with_another_runs_weights(data: str, tmp_path: Path):
    state = trained(job_of(data, str(tmp_path / "first"), callbacks=[]))
    job = job_of(data, str(tmp_path / "second"), callbacks=[], start_from={"run_folder": str(tmp_path / "first")})
    schema = Dataset.open(data).schema
    check_source(job, schema, pytest.fail)
    model, batch = built(job), first_batch(job)
    take_first_weights(job, schema, model)
    with torch.no_grad():
        torch.testing.assert_close(model.forward(batch), state.arms[0].model.forward(batch), rtol=0, atol=0)


def test_a_damaged_checkpoint_is_told_of_and_the_one_before_it_taken(data: str, tmp_path: Path):
    source = tmp_path / "first"
    trained(job_of(data, str(source), callbacks=[]))
    checkpoints = sorted((source / "checkpoints").iterdir())
    next(checkpoints[-1].glob("*.safetensors")).write_bytes(b"cut")
    job = job_of(data, str(tmp_path / "second"), callbacks=[], start_from={"run_folder": str(source)})
    schema = Dataset.open(data).schema
    told: list[str] = []
    check_source(job, schema, told.append)
    assert len(told) == 1
    assert f"{checkpoints[-1].name} is refused" in told[0]
    take_first_weights(job, schema, built(job))


def test_what_does_not_fit_is_refused_before_anything_is_trained(data: str, tmp_path: Path):
    schema = Dataset.open(data).schema
    folder = tmp_path / "supernet"
    one, other = choices(data, 2)

    def check_job_with(**changes: Any) -> None:
        given = {"optimizer": OPTIMIZER, "callbacks": [], "start_from": {"run_folder": str(folder)}, **changes}
        check_source(job_of(data, "y", **given), schema, pytest.fail)

    with pytest.raises(ConfigError, match=r"start_from.run_folder: found .*/supernet, which is no run"):
        check_job_with()
    job = job_of(data, str(folder), **SUPERNET)
    folder.mkdir()
    (folder / JOB).write_text(dump_job(job))
    with pytest.raises(CheckpointError, match="holds no whole checkpoint"):
        check_job_with()
    trained(job)
    with pytest.raises(ConfigError, match="model.kind: found dlrm; allowed: nasrec, since a supernet was trained"):
        check_job_with()
    model = canonical(one).model_dump(mode="json")
    drawn = {"run_folder": str(folder), "drawn": other.model_dump(mode="json")}
    with pytest.raises(ConfigError, match="start_from.drawn: found another network than `model`"):
        check_job_with(model=model, start_from=drawn)
    sgd = {**OPTIMIZER, "sparse": {"kind": "sgd"}}
    with pytest.raises(ConfigError, match="sparse.kind: found sgd; allowed: rowwise_adagrad, as in start_from"):
        check_job_with(model=model, optimizer=sgd)
    too_wide = canonical(one).model_copy(update={"embedding_dim": 16}).model_dump(mode="json")
    with pytest.raises(
        ConfigError, match=r"model, in the space of start_from.run_folder: the choice is not in the space"
    ):
        check_job_with(model=too_wide)
    dims = {"run_folder": str(folder), "drawn": other.model_dump(mode="json") | {"field_dims": [4]}}
    with pytest.raises(ConfigError, match=r"^start_from.drawn, in the space of start_from.run_folder: "):
        check_job_with(model=model, start_from=dims)
    trained(job_of(data, str(tmp_path / "dlrm"), callbacks=[]))
    wider = {"kind": "dlrm", "embedding_dim": 4, "bottom": [8], "top": [16]}
    with pytest.raises(ConfigError, match="model: found another one than in start_from.run_folder"):
        check_job_with(model=wider, start_from={"run_folder": str(tmp_path / "dlrm")})
    useless = {"run_folder": str(tmp_path / "dlrm"), "drawn": one.model_dump(mode="json")}
    with pytest.raises(ConfigError, match=r"start_from.drawn: found a network; allowed: null, .* of kind dlrm was"):
        check_job_with(start_from=useless)
    same = job_of(data, "y", callbacks=[], start_from={"run_folder": str(tmp_path / "dlrm")})
    with pytest.raises(ConfigError, match="found the tables item, user in .*; allowed: .* the tables item, people"):
        check_source(same, RENAMED, pytest.fail)


def test_adams_moments_begin_anew_with_another_runs_weights(data: str, tmp_path: Path):
    adam = {"sparse": {"kind": "adam", "learning_rate": 0.01}, "dense": {"kind": "adam", "learning_rate": 0.01}}
    first = trained(job_of(data, str(tmp_path / "first"), callbacks=[], optimizer=adam))
    source = first.arms[0].model.tables
    assert all(shard.states["second_moment"].any() for shard in source.shards)
    start_from = {"run_folder": str(tmp_path / "first")}
    job = job_of(data, str(tmp_path / "second"), callbacks=[], optimizer=adam, start_from=start_from)
    model = built(job)
    take_first_weights(job, Dataset.open(data).schema, model)
    for shard, theirs in zip(model.tables.shards, source.shards, strict=True):
        torch.testing.assert_close(shard.weight, theirs.weight, rtol=0, atol=0)
        assert not any(state.any() for state in shard.states.values())
