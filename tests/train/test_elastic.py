from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from raysparse.callbacks.sandwich import Sandwich, SandwichConfig
from raysparse.config import check
from raysparse.data.dataset import TRAIN, write_part
from raysparse.data.schema import TARGETS, sequence_schema
from raysparse.errors import ConfigError
from raysparse.models.sasrec.menu import SASRecSpaceConfig
from raysparse.search.sequence_cache import SequenceCache
from tests.data.sequence_sets import NUM_ITEMS, sequences, write_parts
from tests.gloo import run_ranks
from tests.train.ranks import history, run_job
from tests.train.sequence_jobs import SPACE, run_sequences, run_sequences_until, sequence_job

pytestmark = pytest.mark.multi

LOSSES: tuple[dict[str, Any], ...] = (
    {"kind": "full_softmax"},
    {"kind": "sampled_softmax", "num_negatives": 16},
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_parts(tmp_path_factory.mktemp("data") / "set", sequences(200)).path


def changes_of(folder: Path, **model: Any) -> dict[str, Any]:
    return {
        "model": {"kind": "sasrec_supernet", "space": SPACE, **model},
        "epochs": 2,
        "callbacks": [
            {"kind": "sandwich", "num_drawn": 1},
            {"kind": "early_stop", "patience": 3},
            {"kind": "sequence_cache", "folder": str(folder / "cache")},
        ],
    }


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss["kind"])
def test_small_and_large_networks_learn_together(data: str, tmp_path: Path, one_rank: None, loss: dict[str, Any]):
    changes = changes_of(tmp_path, space={**SPACE, "loss": loss})
    run_job(sequence_job(data, str(tmp_path / "run"), **{**changes, "epochs": 6}))
    records = history(tmp_path / "run")
    assert records[0]["ndcg@10"] < 0.3
    assert records[-1]["ndcg@10"] > 0.5
    cache = SequenceCache.open(str(tmp_path / "cache"))
    supernet, items = cache.supernet(torch.device("cpu")), cache.items()
    for choice in (cache.manifest.space.smallest, cache.manifest.space.largest):
        found = 0
        rows = items[:, : choice.embedding_dim]
        for item in range(1, NUM_ITEMS):
            encoded = supernet.encode(choice, items[item : item + 1], torch.tensor([0, 1]))
            found += int((rows[1:] @ encoded[0]).topk(5).indices.eq(item).any())
        # Most items are followed by the next one.
        assert found > 0.6 * NUM_ITEMS


def test_two_workers_learn_what_one_does(data: str, tmp_path: Path, one_rank: None):
    changes = {**changes_of(tmp_path), "sharding": {"default": "row_wise"}}
    changes["optimizer"] = {"sparse": {"kind": "adam", "learning_rate": 0.02}, "dense": {"learning_rate": 1e-2}}
    run_ranks(2, run_sequences, data, str(tmp_path / "two"), changes)
    of_two = SequenceCache.open(str(tmp_path / "cache"))
    run_job(sequence_job(data, str(tmp_path / "one"), **changes))
    of_one = SequenceCache.open(str(tmp_path / "cache"))
    for one, other in zip(history(tmp_path / "one"), history(tmp_path / "two"), strict=True):
        assert one["ndcg@10"] == pytest.approx(other["ndcg@10"], abs=0.01)
    torch.testing.assert_close(of_one.items(), of_two.items(), rtol=1e-3, atol=1e-4)
    for name, weight in of_one.weights().items():
        torch.testing.assert_close(of_two.weights()[name], weight, rtol=1e-3, atol=1e-3)


def test_a_killed_run_draws_the_same_networks_again(data: str, tmp_path: Path, one_rank: None):
    whole, cut = changes_of(tmp_path / "whole"), changes_of(tmp_path / "cut")
    run_sequences(data, str(tmp_path / "run"), whole)
    run_sequences_until(data, str(tmp_path / "other"), cut, 9, 11)
    run_sequences(data, str(tmp_path / "other"), cut)
    assert history(tmp_path / "run") == history(tmp_path / "other")
    caches = [SequenceCache.open(str(tmp_path / name / "cache")) for name in ("whole", "cut")]
    assert caches[0].manifest == caches[1].manifest


def test_what_is_held_out_is_not_learned(data: str, tmp_path: Path, one_rank: None):
    other = write_parts(tmp_path / "set", sequences(200)).path
    change_last_targets(other)
    for hold_out, name in ((True, "held"), (False, "run")):
        for path in (data, other):
            folder = tmp_path / f"{name}-{path == other}"
            run_job(sequence_job(path, str(folder), **changes_of(folder, hold_out_last=hold_out)))
    held, held_of_other, run, run_of_other = (
        SequenceCache.open(str(tmp_path / name / "cache"))
        for name in ("held-False", "held-True", "run-False", "run-True")
    )
    # Whatever the last targets are, the same is learned: no loss or gradient comes from them.
    assert history(tmp_path / "held-False") == history(tmp_path / "held-True")
    assert held.items().equal(held_of_other.items())
    assert all(held_of_other.weights()[name].equal(weight) for name, weight in held.weights().items())
    assert not run.items().equal(run_of_other.items())


def change_last_targets(data: str) -> None:
    """Have the last item of each row of the training part be another one."""
    part = Path(data) / f"day={TRAIN}" / "part-00000.parquet"
    table = pq.ParquetFile(part).read()
    changed = [[*targets[:-1], 1 + (targets[-1] + 6) % NUM_ITEMS] for targets in table[TARGETS].to_pylist()]
    place = table.schema.get_field_index(TARGETS)
    column = pa.array(changed, table.schema.field(TARGETS).type)
    write_part(data, TRAIN, 0, table.set_column(place, table.schema.field(TARGETS), column))


def test_axes_are_opened_by_steps():
    space = check(SASRecSpaceConfig, SPACE, "the space")
    sandwich = Sandwich(SandwichConfig(num_drawn=2, opening_steps=10), space, sequence_schema(NUM_ITEMS), seed=1)
    assert sandwich.choices(9) == (space.largest,)
    later = [sandwich.choices(step) for step in range(10, 20)]
    assert all(choices[0] == space.largest for choices in later)
    assert {choice.num_layers for choices in later for choice in choices} == {2}
    assert {choice.head_counts for choices in later for choice in choices} > {(1, 1), (2, 2)}
    assert space.smallest in sandwich.choices(40)
    assert sandwich.choices(41) == sandwich.choices(41) != sandwich.choices(42)
    # Without opening, all is open from the first step.
    free = Sandwich(SandwichConfig(), space, sequence_schema(NUM_ITEMS), seed=1)
    assert free.choices(0)[:2] == (space.largest, space.smallest)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"callbacks": []}, "only with a sandwich in callbacks"),
        ({"model": {"kind": "sasrec"}}, r"callbacks.0.kind: .*only with model.kind sasrec_supernet, found sasrec"),
        (
            {"callbacks": [{"kind": "sandwich"}, {"kind": "path_sampling"}]},
            "only with model.kind nasrec_supernet, found sasrec_supernet",
        ),
    ],
)
def test_a_supernet_without_its_callback_and_a_callback_without_its_supernet_are_refused(
    changes: dict[str, Any], fault: str
):
    with pytest.raises(ConfigError, match=fault):
        sequence_job("data", "run", **{**changes_of(Path("x")), **changes})
