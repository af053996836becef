"""Whole pruning windows on the larger head."""

import torch
from torch import nn

from raysparse.sparsity.build import PrunerConfig, build_pruner
from raysparse.sparsity.layout import Layout, Masks
from raysparse.sparsity.pruner import Pruner, read_masks
from tests.sparsity.heads import larger, train

NUM_STEPS = 36
"""Steps of a window, of which the first two thirds prune."""


def pruning_steps(num_steps: int) -> int:
    return max(1, num_steps * 2 // 3)


def progress(step: int, num_steps: int = NUM_STEPS) -> float:
    """Progress of the pruning after a step, from 0 on."""
    return min(1.0, (step + 1) / pruning_steps(num_steps))


def run_window(
    config: PrunerConfig, budget: float, num_steps: int = NUM_STEPS
) -> tuple[nn.Module, Layout, Pruner, list[Masks]]:
    """Train and prune through a window; the masks after each step."""
    head, layout = larger()
    pruner = build_pruner(config, layout, budget, pruning_steps(num_steps), seed=1)
    history: list[Masks] = []

    def after_step(step: int) -> None:
        pruner.step(head, progress(step, num_steps))
        history.append(read_masks(head))

    train(head, range(num_steps), after_step)
    return head, layout, pruner, history


def assert_a_restored_window_goes_on_the_same(config: PrunerConfig, budget: float, stop: int) -> None:
    """Stop after some steps, build everything anew, write the saved tensors into it, and go on."""
    head, _, pruner, _ = run_window(config, budget)
    first, layout = larger()
    before = build_pruner(config, layout, budget, pruning_steps(NUM_STEPS), seed=1)
    train(first, range(stop), lambda step: before.step(first, progress(step)))

    second, layout = larger(seed=4)
    second.load_state_dict(first.state_dict())
    after = build_pruner(config, layout, budget, pruning_steps(NUM_STEPS), seed=1)
    restored = after.tensors()
    assert set(restored) == set(before.tensors())
    for name, tensor in before.tensors().items():
        restored[name].copy_(tensor)
    train(second, range(stop, NUM_STEPS), lambda step: after.step(second, progress(step)))
    for name, tensor in head.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], tensor, rtol=0, atol=0)
    for name, tensor in pruner.tensors().items():
        torch.testing.assert_close(after.tensors()[name], tensor, rtol=0, atol=0)


def set_gradients(head: nn.Module, gradients: dict[str, torch.Tensor]) -> None:
    """Give the masks gradients, as a backward pass would."""
    for name, gradient in gradients.items():
        mask = head.get_parameter(f"{name}.mask")
        mask.grad = gradient.clone()


def same(first: Masks, second: Masks) -> bool:
    return all(torch.equal(first[place], second[place]) for place in first)
