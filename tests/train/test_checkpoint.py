from pathlib import Path

import pytest

from raysparse.train import checkpoint
from raysparse.train.checkpoint import CheckpointFolder, restore, save
from raysparse.train.run_folder import RunFolder
from raysparse.train.state import TrainState
from tests.data.datasets import PLAIN, write_dataset
from tests.train.ranks import SaveAt, StopError, job_of, run_job

STEPS = 5
"""Of a day."""


@pytest.fixture
def state(tmp_path: Path, one_rank: None) -> TrainState:
    """A run of two days, whose last step was saved by the clock, and then as the end of the day."""
    data = write_dataset(tmp_path / "set", PLAIN, [[300]] * 2).path
    return run_job(job_of(data, str(tmp_path / "run"), callbacks=[]), [SaveAt(2 * STEPS - 2)])


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    return CheckpointFolder(RunFolder(str(tmp_path / "run")))


def test_a_step_that_is_saved_again_does_not_replace_what_is_there(state: TrainState, folder: CheckpointFolder):
    assert state.position.num_steps == 2 * STEPS
    assert folder.steps() == ["step-000000010-001", "step-000000010"]
    assert [folder.state(name)["position"] for name in folder.steps()] == [
        {"day_index": 2, "batch": 0, "num_steps": 10},
        {"day_index": 1, "batch": 5, "num_steps": 10},
    ]
    assert folder.latest(pytest.fail) == "step-000000010-001"
    folder.keep(1)
    assert save(folder, state, []).endswith("/step-000000010-002")
    assert folder.steps() == ["step-000000010-002", "step-000000010-001"]


@pytest.mark.parametrize("killed_in", ["save_tensors", "finish"])
def test_a_kill_while_a_step_is_saved_again_leaves_a_whole_one(
    state: TrainState, folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch, killed_in: str
):
    folder.keep(1)
    (whole,) = folder.steps()

    def kill(*arguments: object) -> None:
        raise StopError

    with monkeypatch.context() as patch:
        if killed_in == "save_tensors":
            patch.setattr(checkpoint, "save_tensors", kill)
        else:
            patch.setattr(folder, "finish", kill)
        with pytest.raises(StopError):
            save(folder, state, [])
    assert folder.latest(lambda text: None) == whole
    restore(folder, whole, state, [])
    # What was begun makes way for the next try.
    again = save(folder, state, [])
    assert again.endswith("/step-000000010-002")
    assert folder.steps() == ["step-000000010-002", whole]
    assert folder.fault("step-000000010-002") is None
