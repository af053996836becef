import pytest
import torch

from raysparse.models.groups import groups_of, links_of
from raysparse.sparsity.criteria import Scores
from raysparse.sparsity.hard_concrete import (
    FIRST_LOGIT,
    LEAST,
    MOST,
    TEMPERATURE,
    HardConcreteConfig,
    HardConcretePruner,
    open_chance,
)
from raysparse.sparsity.pruner import read_masks
from tests.sparsity.heads import larger
from tests.sparsity.windows import same, set_gradients


def gates_of(num_draws: int, gradient: float) -> list[Scores]:
    """Gates as they are drawn, step by step, with one gradient for all."""
    head, layout = larger()
    pruner = HardConcretePruner(HardConcreteConfig(gate_rate=1e-9), layout, 0.5, num_draws * 100, seed=1)
    gates: list[Scores] = []
    for step in range(num_draws):
        set_gradients(head, {place: torch.full((size,), gradient) for place, size in layout.sizes.items()})
        pruner.step(head, (step + 1) / (num_draws * 100))
        gates.append(
            {name: place.mask.detach().clone() for name, place in groups_of(head).items() if place.mask is not None}
        )
    return gates


def test_gates_are_as_often_shut_and_whole_as_their_distribution_says():
    drawn = torch.cat([gate for gates in gates_of(400, gradient=1.0) for gate in gates.values()])
    assert len(drawn) > 30_000
    chance = open_chance(torch.tensor(FIRST_LOGIT)).item()
    assert chance == pytest.approx(0.9308, abs=1e-4)
    assert (drawn > 0).float().mean().item() == pytest.approx(chance, abs=0.005)
    # Whole is as likely as shut would be with the logit's other sign.
    assert (drawn < 1).float().mean().item() == pytest.approx(open_chance(torch.tensor(-FIRST_LOGIT)).item(), abs=0.01)


def test_logits_move_down_the_gradient_through_the_gate_as_autograd_has_it():
    head, layout = larger()
    pruner = HardConcretePruner(HardConcreteConfig(price_rate=1e-9, memory=1e-3), layout, 0.5, num_steps=10_000, seed=1)
    zeros = {place: torch.zeros(size) for place, size in layout.sizes.items()}
    set_gradients(head, zeros)
    pruner.step(head, 1e-4)
    state = {name: tensor.clone() for name, tensor in pruner.tensors().items()}
    generator = torch.Generator().manual_seed(7)
    gradients = {place: torch.randn(size, generator=generator) for place, size in layout.sizes.items()}
    set_gradients(head, gradients)
    pruner.step(head, 2e-4)
    moves: list[torch.Tensor] = []
    expected: list[torch.Tensor] = []
    for place, gradient in gradients.items():
        logit = state[f"logit/{place}"].requires_grad_()
        # The uniform number behind the draw, as if the logit had been another one.
        noise = state[f"drawn/{place}"].double().logit() * TEMPERATURE - logit.detach()
        gate = (((noise + logit) / TEMPERATURE).sigmoid() * (MOST - LEAST) + LEAST).clamp(0.0, 1.0)
        (gate * gradient).sum().backward()
        assert logit.grad is not None
        expected.append(logit.grad)
        moves.append(pruner.tensors()[f"logit/{place}"] - logit.detach())
    move, gradient = torch.cat(moves), torch.cat(expected)
    assert 10 < int((gradient == 0).sum()) < len(gradient) - 10
    torch.testing.assert_close(move, -(20.0 / 10_000) * gradient / gradient.abs().mean(), rtol=1e-3, atol=1e-6)


def test_what_the_loss_wants_open_stays_and_the_losss_scale_does_not_matter():
    masks = []
    for scale in (1.0, 1e-4):
        head, layout = larger()
        pruner = HardConcretePruner(HardConcreteConfig(), layout, 0.6, num_steps=200, seed=1)
        gradients = {place: -scale * torch.ones(size) for place, size in layout.sizes.items()}
        gradients["top.0.2"][::4] *= -1.0
        for step in range(200):
            set_gradients(head, gradients)
            pruner.step(head, (step + 1) / 200)
        masks.append(read_masks(head))
    assert not masks[0]["top.0.2"][::4].any()
    assert same(masks[0], masks[1])


def test_at_the_end_gates_are_0_or_1_and_their_means_are_in_the_weights():
    head, layout = larger()
    pruner = HardConcretePruner(HardConcreteConfig(), layout, 0.5, num_steps=2, seed=1)
    zeros = {place: torch.zeros(size) for place, size in layout.sizes.items()}
    set_gradients(head, zeros)
    assert not pruner.step(head, 0.5)
    before = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    assert pruner.step(head, 1.0)
    for name, place in groups_of(head).items():
        assert place.mask is not None
        assert set(place.mask.tolist()) <= {0.0, 1.0}
        link = links_of(head)[name]
        columns = slice(link.first_column, link.first_column + place.num_groups)
        weight = head.get_parameter(f"{link.consumer}.weight")[:, columns]
        mean = (pruner.tensors()[f"logit/{name}"].sigmoid() * (MOST - LEAST) + LEAST).clamp(0.1, 1.0)
        torch.testing.assert_close(weight.detach(), before[f"{link.consumer}.weight"][:, columns] * mean)
    stood = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    assert not pruner.step(head, 1.0)
    assert all(torch.equal(tensor, stood[name]) for name, tensor in head.state_dict().items())
