from collections.abc import Iterator
from itertools import cycle

import pytest
import torch

from raysparse.data.batch import Batch
from raysparse.data.epoch_stream import EpochStream
from raysparse.data.selection import select_days
from raysparse.data.sequence_batch import sequences_of, split_last_targets
from raysparse.data.stream import StreamConfig
from raysparse.models.sasrec.full_softmax import full_softmax
from raysparse.models.sasrec.relaxed import Weights, weights_of
from raysparse.search.held_out_losses import HeldOutLosses
from raysparse.train.item_draws import ItemDraws
from tests.data.sequence_sets import NUM_ITEMS, sequences, write_parts
from tests.models.sasrec.test_supernet import supernet_of

ITEMS = torch.randn(NUM_ITEMS + 1, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> list[Batch]:
    dataset = write_parts(tmp_path_factory.mktemp("data") / "set", sequences(50))
    stream = EpochStream(dataset, StreamConfig(batch_size=20), 1, 0, 1, None)
    return list(stream.batches(select_days(dataset, None, None, 1)[0]))


def losses_of(batches: list[Batch], learning_rate: float = 0.0, hold_out: bool = True) -> HeldOutLosses:
    def read() -> Iterator[Batch]:
        return cycle(batches)

    draws = ItemDraws(NUM_ITEMS, None, seed=1)
    supernet = supernet_of(loss={"kind": "full_softmax"})
    return HeldOutLosses(supernet, ITEMS, draws, read, learning_rate, hold_out)


def test_the_last_target_of_each_row_chooses(batches: list[Batch]):
    losses, supernet = losses_of(batches), supernet_of(loss={"kind": "full_softmax"})
    space = supernet.config.space
    choice = space.network(4, 12, [3], [2], ["linear"])
    for step in (0, 1, 2, 3):
        weights = weights_of(space, choice)
        _, last = split_last_targets(sequences_of(batches[step % len(batches)].ids, 12))
        encoded = supernet.encode(choice, ITEMS[last.items][last.input_places], last.input_offsets)
        expected = full_softmax(encoded[last.target_inputs], ITEMS[:, :4], last.targets) / len(last.targets)
        torch.testing.assert_close(losses.choice_loss(weights, step), expected, rtol=1e-5, atol=1e-5)


def test_the_shared_weights_learn_and_the_supernet_stays_as_it_was(batches: list[Batch]):
    losses = losses_of(batches, learning_rate=0.01)
    space = losses._space
    weights = weights_of(space, space.largest)
    first = losses.choice_loss(weights, 0).item()
    for step in range(1, 25):
        losses.weight_step(space.largest, step)
    later = [losses.choice_loss(weights, step).item() for step in range(25, 28)]
    assert sum(later) / 3 < 0.9 * first
    assert losses_of(batches).choice_loss(weights, 0).item() == pytest.approx(first)
    still = losses_of(batches)
    still.weight_step(space.largest, 0)
    assert still.choice_loss(weights, 0).item() == pytest.approx(first)


def test_without_holding_out_all_targets_choose(batches: list[Batch]):
    losses, supernet = losses_of(batches, hold_out=False), supernet_of(loss={"kind": "full_softmax"})
    space = supernet.config.space
    every = sequences_of(batches[0].ids, 12)
    encoded = supernet.encode(space.largest, ITEMS[every.items][every.input_places], every.input_offsets)
    expected = full_softmax(encoded[every.target_inputs], ITEMS, every.targets) / len(every.targets)
    loss = losses.choice_loss(weights_of(space, space.largest), 0)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)


def test_a_mixture_of_all_options_learns(batches: list[Batch]):
    losses = losses_of(batches, learning_rate=0.01, hold_out=False)
    mixed = Weights(*(torch.full_like(axis, 0.5) for axis in weights_of(losses._space, losses._space.largest).all))
    first = losses.choice_loss(mixed, 0).item()
    for step in range(1, 25):
        losses.weight_step(mixed, step)
    later = [losses.choice_loss(mixed, step).item() for step in range(25, 28)]
    assert sum(later) / 3 < 0.9 * first
