from typing import Literal

import pytest
import torch
from torch import Tensor

from raysparse.sparsity.build import build_pruner
from raysparse.sparsity.compaction import compact
from raysparse.sparsity.compensation import Training
from raysparse.sparsity.greedy import GreedyConfig, GreedyPruner
from raysparse.sparsity.layout import open_masks, widths_of, within
from raysparse.sparsity.pruner import mask_open, read_masks
from raysparse.sparsity.schedule import cubic_budget
from tests.sparsity.heads import LARGER, WITH_DENSE, assert_budget_is_used, backward, batch_of, larger, train
from tests.sparsity.windows import (
    NUM_STEPS,
    progress,
    pruning_steps,
    run_window,
    same,
    set_gradients,
)

Criterion = Literal["taylor", "movement", "random"]
Allocation = Literal["global", "uniform", "erk"]


@pytest.mark.parametrize("budget", [0.6, 0.3])
@pytest.mark.parametrize("criterion", ["taylor", "movement", "random"])
def test_the_budget_is_met_within_one_group(criterion: Criterion, budget: float):
    _, layout, pruner, history = run_window(GreedyConfig(criterion=criterion, rounds=6), budget)
    assert pruner.macs == int(budget * layout.dense_macs)
    widths = widths_of(history[-1])
    room = pruner.macs - layout.macs(widths)
    # Groups of earlier rounds do not come back: of the last round's places none fits.
    assert 0 <= room < max(layout.macs_per_group(widths).values())
    assert all(widths[place] >= floor for place, floor in layout.floors.items())


@pytest.mark.parametrize(("rows", "shown"), [(16, 24), (400, 24), (1600, 8)])
def test_columns_are_looked_at_as_often_as_their_number_needs(rows: int, shown: int):
    head, layout = larger()
    assert max(layout.num_columns(place) for place in layout.sizes) == 40
    added: list[int] = []

    def weights(columns: Tensor) -> Tensor:
        added.append(columns.shape[1])
        return columns.new_ones(len(columns))

    training = Training(lambda: head, weights, lambda tensor: None, rows)
    pruner = build_pruner(GreedyConfig(rounds=4, memory=0.0625), layout, 0.5, 24, seed=1, training=training)
    train(head, range(24), lambda step: pruner.step(head, (step + 1) / 24))
    # 24 steps remember 1.5 of them: 2,400 rows, three times the 800 that 40 columns need.
    assert added.count(40) == shown
    assert len(added) == shown * len(layout.sizes)


def test_one_round_uses_the_budget_up():
    _, layout, pruner, history = run_window(GreedyConfig(rounds=1), 0.4)
    assert_budget_is_used(layout, history[-1], pruner.macs)


@pytest.mark.parametrize("allocation", ["uniform", "erk"])
def test_a_fixed_allocation_keeps_to_its_widths_and_the_budget(allocation: Allocation):
    _, layout, pruner, history = run_window(GreedyConfig(allocation=allocation, rounds=6), 0.4)
    widths = widths_of(history[-1])
    assert 0.85 * pruner.macs < layout.macs(widths) <= pruner.macs
    ratios = [width / layout.sizes[place] for place, width in widths.items()]
    assert (max(ratios) - min(ratios) < 0.1) == (allocation == "uniform")


def test_rounds_follow_the_cubic_schedule_and_masks_stand_in_the_last_third():
    _, layout, pruner, history = run_window(GreedyConfig(rounds=4), 0.3)
    changes = [step for step in range(1, NUM_STEPS) if not same(history[step], history[step - 1])]
    # Four rounds in the first 24 of 36 steps: after steps 6, 12, 18 and 24.
    assert changes == [5, 11, 17, 23]
    for step in changes:
        allowed = cubic_budget(pruner.macs / layout.dense_macs, progress(step))
        assert layout.macs(widths_of(history[step])) / layout.dense_macs <= allowed + 1e-9
    for earlier, later in zip(history, history[1:], strict=False):
        assert all(not (later[place] & ~mask).any() for place, mask in earlier.items())


def test_a_window_of_one_step_meets_the_budget():
    _, layout, pruner, history = run_window(GreedyConfig(), 0.5, num_steps=1)
    assert_budget_is_used(layout, history[-1], pruner.macs)


def test_neurons_that_do_nothing_go_first():
    head, layout = larger()
    with torch.no_grad():
        # Never active: their pre-activations are far below zero.
        head.get_parameter("top.0.0.bias")[:10] = -1e3
    pruner = GreedyPruner(GreedyConfig(rounds=1), layout, 0.6, num_steps=3, seed=1)
    for step in range(3):
        backward(head, seed=step)
        pruner.step(head, (step + 1) / 3)
    assert not read_masks(head)["top.0.2"][:10].any()


def test_movement_keeps_what_the_loss_wants_larger():
    head, layout = larger()
    gradients = {place: torch.linspace(-1, 1, size) for place, size in layout.sizes.items()}
    config = GreedyConfig(criterion="movement", mix=1.0, rounds=1, allocation="uniform")
    pruner = GreedyPruner(config, layout, 0.5, num_steps=1, seed=1)
    set_gradients(head, gradients)
    pruner.step(head, 1.0)
    for mask in read_masks(head).values():
        width = int(mask.sum())
        assert mask[:width].all()


def test_random_scores_come_from_the_seed():
    config = GreedyConfig(criterion="random", rounds=1)
    masks = []
    for seed in (1, 1, 100):
        head, layout = larger()
        pruner = GreedyPruner(config, layout, 0.5, num_steps=1, seed=seed)
        pruner.step(head, 1.0)
        masks.append(read_masks(head))
    assert same(masks[0], masks[1])
    assert not same(masks[0], masks[2])


def test_a_head_without_its_pruned_groups_loses_the_same_ones_as_a_masked_one():
    config, budget = GreedyConfig(rounds=6), 0.3
    masked, layout, _, history = run_window(config, budget)
    head, _ = larger()
    kept = open_masks(layout)
    pruner = GreedyPruner(config, layout, budget, pruning_steps(NUM_STEPS), seed=1)
    sizes: list[int] = []
    for step in range(NUM_STEPS):
        train(head, range(step, step + 1), lambda _: None)
        if pruner.step(head, progress(step)):
            masks = read_masks(head)
            kept = within(kept, masks)
            head = compact(head, masks)
            mask_open(head)
            pruner.narrow(masks)
            sizes.append(sum(parameter.numel() for parameter in head.parameters()))
        assert same(kept, history[step])
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.5 * sizes[0]
    dense, pooled, _ = batch_of(LARGER, WITH_DENSE)
    torch.testing.assert_close(head(dense, pooled), masked(dense, pooled), rtol=1e-4, atol=1e-5)
