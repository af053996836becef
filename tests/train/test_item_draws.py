import numpy as np
import torch

from raysparse.train.item_draws import ItemDraws, history_keys
from tests.data.sequence_sets import ids_of

COUNTS = np.array([1.0, 0.0, 5.0, 2.0, 2.0])


def test_draws_follow_the_seed_and_the_step():
    draws = ItemDraws(1000, None, seed=3)
    first = draws.draw("uniform", 50, 7)
    assert first.equal(ItemDraws(1000, None, seed=3).draw("uniform", 50, 7))
    assert not first.equal(draws.draw("uniform", 50, 8))
    assert not first.equal(ItemDraws(1000, None, seed=4).draw("uniform", 50, 7))


def test_even_draws_reach_every_item_but_row_0():
    drawn = ItemDraws(5, None, seed=1).draw("uniform", 50_000, 0)
    shares = torch.bincount(drawn, minlength=6) / 50_000
    assert shares[0] == 0
    torch.testing.assert_close(shares[1:], torch.full((5,), 0.2), atol=0.01, rtol=0)


def test_popular_draws_come_as_often_as_the_items():
    draws = ItemDraws(5, COUNTS, seed=1)
    drawn = draws.draw("popular", 50_000, 0)
    shares = torch.bincount(drawn, minlength=6)[1:] / 50_000
    torch.testing.assert_close(shares.double(), torch.from_numpy(COUNTS / 10), atol=0.01, rtol=0)
    expected = draws.log_expected("popular", torch.tensor([1, 3]), 20)
    torch.testing.assert_close(expected.exp(), torch.tensor([2.0, 10.0]))
    assert draws.log_expected("uniform", torch.tensor([1, 3]), 20).exp().tolist() == [4.0, 4.0]


def test_a_row_has_its_share_whatever_the_batch():
    def shares(rows: list[tuple[list[int], list[int]]], seed: int = 3, step: int = 7) -> list[float]:
        return ItemDraws(100, None, seed).shares(ids_of(rows), step).tolist()

    rows = [([1], [number, 2]) for number in range(3, 1003)]
    drawn = shares(rows)
    assert shares(rows[500:]) == drawn[500:]
    assert shares([([], []), *rows[:2]])[1:] == drawn[:2]
    assert not set(shares(rows, seed=4)) & set(drawn)
    assert not set(shares(rows, step=8)) & set(drawn)
    # Even: a tenth of them in each tenth, give or take three deviations.
    counts = np.histogram(drawn, bins=10, range=(0, 1))[0]
    assert counts.sum() == 1000
    assert abs(counts - 100).max() < 30


def test_what_a_target_is_ranked_among_is_unseen_and_its_own_whatever_the_batch():
    draws = ItemDraws(300, None, seed=1)
    targets = torch.tensor([5, 9, 5])
    before = torch.tensor([1, 2, 3, 4, 7, 8])
    of = torch.tensor([0, 0, 1, 1, 2, 2])
    keys = history_keys(targets, before, of)
    assert len(set(keys.tolist())) == 3
    chosen = draws.draw_unseen("uniform", 100, keys, before, of)
    assert chosen.shape == (3, 100)
    assert chosen.min() >= 1
    for number in range(3):
        assert not set(chosen[number].tolist()) & set(before[of == number].tolist())
    alone = history_keys(targets[1:2], before[2:4], torch.tensor([0, 0]))
    assert alone.equal(keys[1:2])
    assert draws.draw_unseen("uniform", 100, alone, before[2:4], torch.tensor([0, 0])).equal(chosen[1:2])


def test_who_has_seen_what_is_popular_is_ranked_among_as_many():
    counts = np.array([1e4, *[1.0] * 200])
    draws = ItemDraws(201, counts, seed=1)
    keys, seen, of = torch.tensor([5, 6]), torch.tensor([1]), torch.tensor([0])  # item 1 is 98 % of the draws
    chosen = draws.draw_unseen("popular", 20, keys, seen, of)
    assert (chosen > 0).all()
    assert 1 not in chosen[0]
    assert (chosen[1] == 1).sum() > 15


def test_who_has_seen_nearly_everything_is_ranked_among_fewer():
    draws = ItemDraws(4, None, seed=1)
    seen = torch.tensor([1, 2, 3])
    chosen = draws.draw_unseen("uniform", 10, torch.tensor([123]), seen, torch.zeros(3, dtype=torch.int64))
    assert set(chosen.unique().tolist()) <= {0, 4}
    assert (chosen == 4).any()
