import torch

from raysparse.sparsity.gates import GatesConfig, GatesPruner
from raysparse.sparsity.layout import Masks, widths_of
from raysparse.sparsity.pruner import read_masks
from tests.sparsity.heads import assert_budget_is_used, larger
from tests.sparsity.windows import run_window, same, set_gradients


def test_masks_stand_in_the_last_third():
    _, _, _, history = run_window(GatesConfig(), 0.3)
    # 24 of 36 steps prune; the projection is the last change.
    assert not same(history[22], history[23])
    assert all(same(masks, history[23]) for masks in history[24:])


def test_floors_hold_at_every_step():
    _, layout, _, history = run_window(GatesConfig(gate_rate=50.0, price_rate=5e3), 0.15)
    for masks in history:
        assert all(width >= layout.floors[place] for place, width in widths_of(masks).items())


def test_a_gate_opens_again_when_its_group_begins_to_matter():
    head, layout = larger()
    num_steps = 200
    pruner = GatesPruner(GatesConfig(memory=0.05), layout, 0.5, num_steps, seed=1)
    first_half = {place: (torch.arange(size) < size // 2).float() for place, size in layout.sizes.items()}
    second_half = {place: 1.0 - gradient for place, gradient in first_half.items()}
    seen: dict[int, Masks] = {}
    for step in range(num_steps):
        set_gradients(head, first_half if step < 100 else second_half)
        pruner.step(head, (step + 1) / num_steps)
        seen[step] = read_masks(head)
    closed = {place: ~mask & (second_half[place] > 0) for place, mask in seen[99].items()}
    assert closed["top.0.2"].sum() > 10
    opened = {place: mask & closed[place] for place, mask in seen[num_steps - 2].items()}
    assert opened["top.0.2"].sum() > 10
    assert widths_of(opened) == widths_of(closed)


def test_what_has_no_gradient_closes_first_and_the_losss_scale_does_not_matter():
    masks = []
    for scale in (1.0, 1e-4):
        head, layout = larger()
        pruner = GatesPruner(GatesConfig(), layout, 0.7, num_steps=60, seed=1)
        gradients = {place: scale * torch.ones(size) for place, size in layout.sizes.items()}
        gradients["top.0.2"][::4] = 0.0
        for step in range(60):
            set_gradients(head, gradients)
            pruner.step(head, (step + 1) / 60)
        masks.append(read_masks(head))
    assert not masks[0]["top.0.2"][::4].any()
    assert same(masks[0], masks[1])


def test_no_gradient_at_all_still_meets_the_budget():
    head, layout = larger()
    pruner = GatesPruner(GatesConfig(), layout, 0.5, num_steps=10, seed=1)
    for step in range(10):
        pruner.step(head, (step + 1) / 10)
    assert_budget_is_used(layout, read_masks(head), pruner.macs)
