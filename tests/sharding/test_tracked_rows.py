import pytest
import torch

from raysparse.sharding.model import ShardedModel
from raysparse.sharding.tracked_rows import TrackedRows
from tests.sharding.ranks import CPU, KINDS, batch, build, train


def one_step(kind: str, optimizer: str) -> tuple[ShardedModel, TrackedRows]:
    model = build(kind, optimizer)
    rows = TrackedRows(model.tables, CPU)
    train(model, 0, 1)
    return model, rows


def weights(model: ShardedModel) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for table, (rows, columns) in model.tables.shapes.items():
        tensors[table] = torch.empty(rows, columns)
        for shard in model.tables.shards:
            if shard.table == table:
                last = shard.first_column + shard.weight.shape[1]
                tensors[table][:, shard.first_column : last] = shard.weight.detach()
    return tensors


@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "adagrad"])
@pytest.mark.parametrize("kind", KINDS)
def test_squares_are_those_of_the_gradients_and_counted_once(one_rank: None, kind: str, optimizer: str):
    descent = build(kind, "sgd")
    before = weights(descent)
    train(descent, 0, 1)
    gradients = {table: (before[table] - weight) / 0.1 for table, weight in weights(descent).items()}
    _, rows = one_step(kind, optimizer)
    for row_range, squares in zip(rows.ranges, rows.take_squares(), strict=True):
        expected = gradients[row_range.table].square().sum(1)
        torch.testing.assert_close(squares, expected, rtol=1e-3, atol=1e-9)
    assert not any(squares.any() for squares in rows.take_squares())


@pytest.mark.parametrize("kind", KINDS)
def test_accesses_of_shared_tables_are_those_of_all_their_features(one_rank: None, kind: str):
    model, rows = one_step(kind, "rowwise_adagrad")
    with torch.no_grad():
        model.forward(batch(1))  # scoring does not count
    ids = batch(0).ids.to_dict()
    for row_range, accesses in zip(rows.ranges, rows.take_accesses(), strict=True):
        features = {"a": ["a", "b"]}.get(row_range.table, [row_range.table])
        values = torch.cat([ids[feature].values() for feature in features])
        assert torch.equal(accesses.long(), values.bincount(minlength=len(accesses)))
    assert not any(accesses.any() for accesses in rows.take_accesses())


@pytest.mark.parametrize("kind", KINDS)
def test_a_pruned_row_stays_zero_is_measured_and_comes_back_afresh(one_rank: None, kind: str):
    model, rows = one_step(kind, "rowwise_adagrad")
    rows.hold_at_zero()
    first = rows.take_squares()
    rows.keep([torch.arange(len(part.kept)) % 2 == 0 for part in rows.ranges])
    train(model, 1, 2)
    assert any(weight[1::2].any() for weight in weights(model).values())
    rows.hold_at_zero()
    for table, weight in weights(model).items():
        assert not weight[1::2].any(), table
        assert weight[::2].any(), table
    squares = rows.take_squares()
    assert all(part[1::2].any() for part in squares)
    # Rows that stayed have gone on from what they had; those that are back have not.
    rows.keep([torch.ones_like(part.kept) for part in rows.ranges])
    for part, total in zip(rows.ranges, rows.take_squares(), strict=True):
        assert not total.any()
        assert not part.squares_seen[1::2].any()
    for part, one, two in zip(rows.ranges, first, squares, strict=True):
        torch.testing.assert_close(part.squares_seen[::2], (one + two)[::2])
