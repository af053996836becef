import pytest
import torch

from raysparse.errors import ConfigError
from raysparse.sparsity.build import build_pruner
from raysparse.sparsity.criteria import outgoing_energies
from raysparse.sparsity.layout import open_masks, widths_of
from raysparse.sparsity.pruner import read_masks
from raysparse.sparsity.umec import UmecConfig, UmecPruner
from tests.sparsity.heads import assert_budget_is_used, larger
from tests.sparsity.windows import NUM_STEPS, assert_a_restored_window_goes_on_the_same, run_window, same


@pytest.mark.parametrize("budget", [0.6, 0.3, 0.15])
@pytest.mark.parametrize("num_steps", [1, 7, NUM_STEPS])
def test_the_budget_is_met_within_one_group(budget: float, num_steps: int):
    _, layout, pruner, history = run_window(UmecConfig(), budget, num_steps)
    assert_budget_is_used(layout, history[-1], pruner.macs)


def test_nothing_is_masked_before_the_projection_and_nothing_changes_after_it():
    _, layout, _, history = run_window(UmecConfig(), 0.3)
    assert all(same(masks, open_masks(layout)) for masks in history[:23])
    assert all(same(masks, history[23]) for masks in history[24:])
    assert layout.macs(widths_of(history[23])) < 0.3 * layout.dense_macs


def test_prices_bring_the_widths_near_the_budget_by_themselves():
    _, _, pruner, _ = run_window(UmecConfig(), 0.3, num_steps=150)
    assert isinstance(pruner, UmecPruner)
    assert pruner.raw_share == pytest.approx(0.3, abs=0.1)


def test_the_groups_to_be_removed_shrink_and_the_others_do_not():
    head, layout = larger()
    before = outgoing_energies(head)
    pruner = UmecPruner(UmecConfig(), layout, 0.3, num_steps=60, seed=1)
    # Without training, so that nothing but the pruner moves the weights.
    for step in range(60):
        pruner.step(head, (step + 1) / 60)
    after = outgoing_energies(head)
    masks = read_masks(head)
    for place, mask in masks.items():
        # The weakest go.
        width = int(mask.sum())
        strongest = before[place].argsort(descending=True)[:width]
        assert set(strongest.tolist()) == set(mask.nonzero().squeeze(1).tolist())
    left = {place: after[place] / before[place] for place in masks}
    assert torch.cat([left[place][~mask] for place, mask in masks.items()]).median().item() < 0.5
    assert torch.cat([left[place][mask] for place, mask in masks.items()]).median().item() == 1.0


@pytest.mark.parametrize("stop", [1, 14, 23, 30])
def test_a_restored_window_goes_on_the_same(stop: int):
    assert_a_restored_window_goes_on_the_same(UmecConfig(), 0.4, stop)


def test_an_impossible_budget_is_refused():
    _, layout = larger(least_groups=10)
    with pytest.raises(ConfigError, match="budget: found 0.01"):
        build_pruner(UmecConfig(), layout, 0.01, 10, seed=1)
