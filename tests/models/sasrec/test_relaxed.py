from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from raysparse.models.sasrec.relaxed import Weights, encode_relaxed, weights_of
from tests.models.sasrec.sequences import LENGTHS, offsets_of, values_of
from tests.models.sasrec.test_supernet import supernet_of

VALUES, OFFSETS = values_of(LENGTHS, 8), offsets_of(LENGTHS)


@pytest.mark.parametrize("gate", ["none", "paper", "context"])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_with_all_weight_on_one_choice_it_computes_that_network(norm: str, gate: str):
    supernet = supernet_of(norm=norm, gate=gate)
    space = supernet.config.space
    blocks = [(heads, ratio, kind) for heads in space.heads for ratio in space.ffn_ratios for kind in space.attentions]
    for width, depth in product(space.widths, space.depths):
        for chosen in zip(*(blocks[shift:] + blocks[:shift] for shift in range(depth)), strict=True):
            heads, ratios, kinds = zip(*chosen, strict=True)
            choice = space.network(width, 12, heads, ratios, kinds)
            found = encode_relaxed(supernet.network, space, weights_of(space, choice), VALUES, OFFSETS)
            expected = supernet.encode(choice, VALUES, OFFSETS)
            torch.testing.assert_close(found[:, :width], expected, rtol=1e-5, atol=1e-5)
            assert not found[:, width:].any()


def soft(*sizes: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(sizes, generator=generator).softmax(-1).requires_grad_()


@pytest.mark.parametrize("gate", ["none", "paper", "context"])
def test_every_axis_has_a_gradient_and_none_is_undefined(gate: str):
    supernet = supernet_of(gate=gate)
    space = supernet.config.space
    weights = Weights(soft(2), soft(2), soft(2, 2), soft(2, 2), soft(2, 2))
    encode_relaxed(supernet.network, space, weights, VALUES, OFFSETS).square().sum().backward()
    for axis in weights.all:
        assert axis.grad is not None
        assert axis.grad.isfinite().all()
        assert axis.grad.abs().sum() > 0


def test_with_heads_off_all_gradients_are_finite():
    supernet = supernet_of()
    space = supernet.config.space
    weights = weights_of(space, space.smallest)
    hard = Weights(*(axis.requires_grad_() for axis in weights.all))
    encode_relaxed(supernet.network, space, hard, VALUES, OFFSETS).square().sum().backward()
    gradients: list[Any] = [axis.grad for axis in hard.all]
    gradients += [parameter.grad for parameter in supernet.network.parameters()]
    assert all(gradient is None or gradient.isfinite().all() for gradient in gradients)
    # What the smallest network does not use is not learned by it.
    project = supernet.network.get_parameter("blocks.0.attention.project.weight").grad
    assert project is not None
    assert not project[2, 4:].any()
