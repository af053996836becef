import torch

from raysparse.sparsity.criteria import outgoing_energies
from raysparse.sparsity.layout import open_masks, widths_of
from raysparse.sparsity.pruner import read_masks
from raysparse.sparsity.umec import UmecConfig, UmecPruner
from tests.sparsity.heads import larger
from tests.sparsity.windows import run_window, same


def test_nothing_is_masked_before_the_projection_and_nothing_changes_after_it():
    _, layout, _, history = run_window(UmecConfig(), 0.3)
    assert all(same(masks, open_masks(layout)) for masks in history[:23])
    assert all(same(masks, history[23]) for masks in history[24:])
    assert layout.macs(widths_of(history[23])) < 0.3 * layout.dense_macs


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
