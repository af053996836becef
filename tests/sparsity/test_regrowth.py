import copy

import pytest
import torch
from torch import nn

from raysparse.models.groups import groups_of, links_of
from raysparse.sparsity.layout import Layout, Masks, open_masks, widths_of
from raysparse.sparsity.projection import project_greedily
from raysparse.sparsity.pruner import read_masks, write_masks
from raysparse.sparsity.regrowth import Regrowth, RegrowthConfig
from tests.sparsity.heads import LARGER, WITH_DENSE, assert_budget_is_used, backward, batch_of, larger, train
from tests.sparsity.windows import same, set_gradients


def pruned(budget: float = 0.4) -> tuple[nn.Module, Layout, int]:
    """A masked head that meets its budget."""
    head, layout = larger()
    macs = layout.budget_macs(budget)
    generator = torch.Generator().manual_seed(9)
    scores = {place: torch.rand(size, generator=generator) for place, size in layout.sizes.items()}
    write_masks(head, project_greedily(scores, layout, open_masks(layout), macs))
    return head, layout, macs


def columns_of(head: nn.Module, place: str, mask: torch.Tensor) -> torch.Tensor:
    """The weights with which a place's groups are read."""
    link = links_of(head)[place]
    groups = groups_of(head)[place]
    first = link.first_column
    weight = head.get_parameter(f"{link.consumer}.weight").detach()
    return weight[:, first : first + groups.num_groups][:, mask]


def test_the_budget_and_the_floors_hold_whatever_is_exchanged():
    head, layout, macs = pruned()
    regrowth = Regrowth(RegrowthConfig(fraction=0.3, every_steps=3), layout, macs, seed=1)
    exchanged = 0

    def after_step(step: int) -> None:
        nonlocal exchanged
        before = read_masks(head)
        grown = regrowth.step(head)
        after = read_masks(head)
        if (step + 1) % 3:
            assert grown is None
            assert same(before, after)
            return
        assert grown is not None
        assert_budget_is_used(layout, after, macs)
        for place, mask in grown.items():
            assert torch.equal(mask, after[place] & ~before[place])
        exchanged += sum(int(mask.sum()) for mask in grown.values())

    train(head, range(30), after_step)
    assert exchanged > 20


def test_the_wanted_come_and_the_worthless_go():
    head, layout, macs = pruned()
    before = read_masks(head)
    wanted, worthless = int((~before["top.0.2"]).nonzero()[0]), int(before["top.0.2"].nonzero()[0])
    gradients = {place: mask.float() for place, mask in before.items()}
    gradients["top.0.2"][wanted] = -5.0
    gradients["top.0.2"][worthless] = 0.0
    set_gradients(head, gradients)
    regrowth = Regrowth(RegrowthConfig(fraction=1e-6, every_steps=1), layout, macs, seed=1)
    grown = regrowth.step(head)
    assert grown is not None
    assert grown["top.0.2"].nonzero().flatten().tolist() == [wanted]
    assert not read_masks(head)["top.0.2"][worthless]


def exchange() -> tuple[nn.Module, nn.Module, Masks]:
    """A head before and after one exchange, and the groups grown."""
    head, layout, macs = pruned()
    regrowth = Regrowth(RegrowthConfig(fraction=0.3, every_steps=1), layout, macs, seed=1)
    backward(head, seed=1)
    before = copy.deepcopy(head)
    grown = regrowth.step(head)
    assert grown is not None
    assert all(mask.any() for place, mask in grown.items() if place.startswith("top"))
    return before, head, grown


def test_grown_groups_say_nothing_at_first_but_learn():
    _, head, grown = exchange()
    dense, pooled, _ = batch_of(LARGER, WITH_DENSE)
    with_grown = head(dense, pooled)
    masks = read_masks(head)
    write_masks(head, {place: mask & ~grown[place] for place, mask in masks.items()})
    torch.testing.assert_close(head(dense, pooled), with_grown)
    write_masks(head, masks)
    for place, mask in grown.items():
        assert not columns_of(head, place, mask).any()
    backward(head, seed=2)
    gradient = head.get_parameter("top.0.3.weight").grad
    assert gradient is not None
    assert gradient[:, grown["top.0.2"]].any()


def test_only_grown_neurons_are_drawn_anew():
    before, head, grown = exchange()
    mask = grown["top.0.2"]
    old, new = before.get_parameter("top.0.0.weight").detach(), head.get_parameter("top.0.0.weight").detach()
    others = torch.ones(new.shape[1], dtype=torch.bool)
    # The bottom network's outputs stand first; pairs that were grown are read with zeros now.
    others[8:] = ~grown["pairs"]
    assert (old[mask][:, others] != new[mask][:, others]).all()
    assert torch.equal(old[~mask][:, others], new[~mask][:, others])
    assert not torch.equal(
        before.get_parameter("top.0.0.bias")[mask], head.get_parameter("top.0.0.bias").detach()[mask]
    )
    num_kept = 8 + int(read_masks(head)["pairs"].sum())
    assert new[mask].abs().max().item() <= num_kept**-0.5


def test_what_is_drawn_depends_on_the_seed_and_the_exchange():
    weights = []
    for seed, exchanges in ((1, 0), (1, 0), (2, 0), (1, 1)):
        head, layout, macs = pruned()
        regrowth = Regrowth(RegrowthConfig(fraction=0.3, every_steps=1), layout, macs, seed)
        regrowth.tensors()["exchanges"].fill_(exchanges)
        backward(head, seed=1)
        regrowth.step(head)
        weights.append(head.get_parameter("top.0.0.weight").detach())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[3])


def test_moments_of_grown_groups_are_forgotten_and_no_others():
    _, head, grown = exchange()
    moments = {
        name: {"exp_avg": torch.ones_like(parameter), "step": torch.tensor(5.0)}
        for name, parameter in head.named_parameters()
        if not name.endswith("mask")
    }
    Regrowth.reset_moments(head, grown, moments)
    first, second = grown["top.0.2"], grown["top.0.5"]
    moment = moments["top.0.3.weight"]["exp_avg"]
    assert torch.equal(moment == 0, second.unsqueeze(1) | first.unsqueeze(0))
    assert torch.equal(moments["top.0.0.bias"]["exp_avg"] == 0, first)
    assert torch.equal(moments["top.1.weight"]["exp_avg"][0] == 0, second)
    assert moments["top.1.bias"]["exp_avg"].all()
    assert moments["top.0.3.weight"]["step"].item() == 5.0
    Regrowth.reset_moments(head, grown, {})


@pytest.mark.parametrize("stop", [2, 5])
def test_a_restored_head_is_exchanged_the_same(stop: int):
    config = RegrowthConfig(fraction=0.3, every_steps=3)
    whole, layout, macs = pruned()
    regrowth = Regrowth(config, layout, macs, seed=1)
    saved = {}

    def after_step(step: int) -> None:
        regrowth.step(whole)
        if step + 1 == stop:
            saved["head"] = copy.deepcopy(whole)
            saved["tensors"] = {name: tensor.clone() for name, tensor in regrowth.tensors().items()}

    train(whole, range(9), after_step)
    restored = Regrowth(config, layout, macs, seed=1)
    for name, tensor in restored.tensors().items():
        tensor.copy_(saved["tensors"][name])
    train(saved["head"], range(stop, 9), lambda step: restored.step(saved["head"]))
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(saved["head"].state_dict()[name], tensor, rtol=0, atol=0)
    assert widths_of(read_masks(whole)) == widths_of(read_masks(saved["head"]))
