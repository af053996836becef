import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch.nn.functional import binary_cross_entropy_with_logits

from raysparse.callbacks.path_sampling import PathSampling, PathSamplingConfig
from raysparse.models.nasrec.choice import BlockChoice, NASRecConfig
from raysparse.models.nasrec.supernet import NASRecSupernet, NASRecSupernetConfig, widest_path
from raysparse.search.ctr_space import CTRSpace
from raysparse.sharding.model import ShardedModel
from raysparse.train.checkpoint import CheckpointFolder
from raysparse.train.run_folder import RunFolder
from raysparse.train.state import Position, TrainState
from tests.callbacks.supernets import MODEL, SPACE, head_of, read_notes, run_noted, supernet_changes
from tests.data.datasets import PLAIN, write_dataset
from tests.gloo import run_ranks
from tests.train.ranks import history, job_of, run_job, run_until, run_whole

WARM_UP = 9


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four days of 300 to 361 rows: 5 or 6 steps each."""
    path = tmp_path_factory.mktemp("data") / "set"
    write_dataset(path, PLAIN, [[300], [200, 161], [310], [320]])
    return str(path)


@pytest.fixture(scope="module")
def whole(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two workers that no one interrupts."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run_ranks(2, run_noted, data, str(folder), supernet_changes(warm_up_steps=WARM_UP))
    return folder


def draw(steps: range, changes: dict[str, Any] | None = None, **config: Any) -> list[NASRecConfig]:
    """The choices of some steps, without a run around them."""
    space = SPACE.model_copy(update=changes or {})
    head = NASRecSupernet(NASRecSupernetConfig(space=space), num_dense=3, num_features=2)
    arm = SimpleNamespace(model=SimpleNamespace(head=head))
    sampling = PathSampling(PathSamplingConfig(**config), space, PLAIN, seed=1)
    drawn: list[NASRecConfig] = []
    for step in steps:
        state = SimpleNamespace(position=Position(num_steps=step), records=[{}], trained=arm)
        sampling.step_end(cast(TrainState, state))
        drawn += head.choices
    return drawn


def is_full(block: BlockChoice) -> bool:
    return block.dense_width == 8 and block.num_tokens == 8 and block.dense_to_sparse and block.fm


def test_a_supernet_learns_and_leaves_a_history(tmp_path: Path, one_rank: None):
    write_dataset(tmp_path / "set", PLAIN, [[2000]] * 3)
    changes = supernet_changes()
    changes["model"] = {**MODEL, "space": {**MODEL["space"], "menu": "small"}}
    changes["optimizer"]["sparse"]["learning_rate"] = 0.3
    run_job(job_of(str(tmp_path / "set"), str(tmp_path / "run"), **changes))
    records = history(tmp_path / "run")
    assert [(record["day"], record["arm"], record["rows"]) for record in records] == [
        (f"00{day}", "trained", 2000) for day in range(3)
    ]
    assert all(math.isfinite(record["log_loss"]) for record in records)
    # The widest path has learned what drawn ones were taught.
    assert records[0]["auc"] == pytest.approx(0.5, abs=0.05)
    assert records[2]["auc"] > 0.7


@pytest.mark.multi
def test_steps_train_drawn_paths_and_days_are_scored_by_the_widest_one(whole: Path):
    trained, scored_with = read_notes(whole)
    assert scored_with == widest_path(SPACE)
    assert len(trained) == 21
    assert len(set(trained)) > 15
    space = CTRSpace(SPACE, PLAIN)
    assert all(space.parse(choice.model_dump(mode="json")) == choice for choice in trained)


@pytest.mark.multi
def test_all_ranks_and_any_number_of_them_draw_the_same_paths(data: str, whole: Path, tmp_path: Path, one_rank: None):
    run_noted(data, str(tmp_path / "one"), supernet_changes(warm_up_steps=WARM_UP))
    assert read_notes(tmp_path / "one") == read_notes(whole, 0) == read_notes(whole, 1)
    # Sums in another order: as so many layer norms have it, the error grows a hundredfold in a day of 5 steps.
    for one, two, rel in zip(history(tmp_path / "one"), history(whole), (1e-6, 1e-4, 1e-2, 1e-1), strict=True):
        assert one["log_loss"] == pytest.approx(two["log_loss"], rel=rel)
    # Another seed draws others.
    run_noted(data, str(tmp_path / "other"), {**supernet_changes(warm_up_steps=WARM_UP), "seed": 2})
    assert read_notes(tmp_path / "other")[0] != read_notes(whole)[0]


@pytest.mark.multi
@pytest.mark.parametrize(("save_at", "stop_at"), [(7, 9), (0, 6)], ids=["within a day", "between days"])
def test_a_killed_run_goes_on_to_the_same_history_and_weights(
    data: str, whole: Path, tmp_path: Path, save_at: int, stop_at: int
):
    changes = supernet_changes(warm_up_steps=WARM_UP)
    run_ranks(2, run_until, data, str(tmp_path / "run"), save_at, stop_at, changes)
    newest = CheckpointFolder(RunFolder(str(tmp_path / "run"))).steps()[0]
    assert newest == f"step-{save_at + 2 if save_at else 5:09d}"
    run_ranks(2, run_whole, data, str(tmp_path / "run"), changes)
    assert history(tmp_path / "run") == history(whole)
    for rank in range(2):
        mine, theirs = (
            load_file(folder / "checkpoints" / "step-000000021" / f"rank-{rank:05d}.safetensors")
            for folder in (tmp_path / "run", whole)
        )
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_several_paths_of_a_step_learn_by_the_mean_of_their_losses(data: str, tmp_path: Path, one_rank: None):
    run_noted(data, str(tmp_path / "three"), supernet_changes(paths_per_step=3))
    trained, _ = read_notes(tmp_path / "three")
    assert len(trained) == 3 * 21
    assert trained == draw(range(21), paths_per_step=3)

    state = run_job(job_of(data, str(tmp_path / "three"), **supernet_changes(paths_per_step=3)))
    batch = next(iter(state.stream.batches(state.days[0])))
    head = head_of(state)
    losses: list[float] = []
    for choice in trained[:3]:
        head.choices = (choice,)
        losses.append(state.task.loss_sum(state.arms[0], batch, 0).item())
    head.choices = tuple(trained[:3])
    assert len(set(losses)) == 3
    assert state.task.loss_sum(state.arms[0], batch, 0).item() == pytest.approx(sum(losses) / 3, rel=1e-6)


def test_drawn_networks_learn_from_the_widest_one_beside_them(data: str, tmp_path: Path, one_rank: None):
    sampling = {"paths_per_step": 2, "widest": True, "distillation": 0.3}
    run_noted(data, str(tmp_path / "run"), supernet_changes(**sampling))
    trained, _ = read_notes(tmp_path / "run")
    drawn = draw(range(21), paths_per_step=2)
    assert trained == [choice for step in range(21) for choice in (widest_path(SPACE), *drawn[2 * step : 2 * step + 2])]

    state = run_job(job_of(data, str(tmp_path / "run"), **supernet_changes(**sampling)))
    batch = next(iter(state.stream.batches(state.days[0])))
    head, model = head_of(state), cast(ShardedModel, state.arms[0].model)
    head.choices = tuple(trained[:3])
    with torch.no_grad():
        widest, *others = (head(batch.dense, model.look_up(batch), choice) for choice in head.choices)
        soft = 0.7 * batch.labels + 0.3 * widest.sigmoid()
        targets = [batch.labels, soft, soft]
        losses = [
            binary_cross_entropy_with_logits(logits, target, batch.weights, reduction="sum").item()
            for logits, target in zip((widest, *others), targets, strict=True)
        ]
    assert state.task.loss_sum(state.arms[0], batch, 0).item() == pytest.approx(sum(losses) / 3, rel=1e-5)


def test_there_is_nothing_to_learn_from_a_network_that_is_not_trained():
    with pytest.raises(ValidationError, match="distillation 0 where widest is false, or widest true; found 0.5"):
        PathSamplingConfig(distillation=0.5)


def test_a_run_leaves_the_widest_path(data: str, tmp_path: Path, one_rank: None):
    job = job_of(data, str(tmp_path / "run"), **supernet_changes())
    state = run_job(job)
    assert head_of(state).choices == (widest_path(SPACE),)
    # And once more, where there is nothing left to train.
    assert head_of(run_job(job)).choices == (widest_path(SPACE),)


def test_the_warm_up_goes_from_full_paths_to_drawn_ones():
    num_steps = 2000
    choices = draw(range(num_steps), warm_up_steps=num_steps)
    first = choices[0]
    assert all(is_full(block) for block in first.blocks)
    assert [len(block.dense_inputs) for block in first.blocks] == [1, 2, 3]
    for start in range(0, num_steps, 500):
        blocks = [block for choice in choices[start : start + 500] for block in choice.blocks]
        coin = 1.0 - (start + 249.5) / num_steps
        # A drawn block is full by chance, too: width, tokens and both mergers.
        expected = coin + (1.0 - coin) / 16
        assert sum(map(is_full, blocks)) / len(blocks) == pytest.approx(expected, abs=0.05)
    assert draw(range(num_steps, num_steps + 20), warm_up_steps=num_steps) == draw(range(num_steps, num_steps + 20))


def test_single_connections_give_every_block_one_input():
    for warm_up_steps in (0, 100):
        choices = draw(range(100), {"num_blocks": 5}, connections="single", warm_up_steps=warm_up_steps)
        blocks = [block for choice in choices for block in choice.blocks]
        assert {len(block.dense_inputs) for block in blocks} == {1}
        assert {len(block.sparse_inputs) for block in blocks} == {1}
        assert len({choice.blocks[4].dense_inputs for choice in choices}) == 5
    assert max(len(choice.blocks[2].dense_inputs) for choice in draw(range(100))) == 3


def test_networks_over_the_budget_are_trained_as_well():
    tight = CTRSpace(SPACE, PLAIN).cost(draw(range(1))[0]).macs // 2
    budget = {"max_macs": tight}
    choices = draw(range(60), budget)
    assert choices == draw(range(60))
    assert max(CTRSpace(SPACE, PLAIN).cost(choice).macs for choice in choices) > tight
