from typing import Any

import pytest
import torch

from raysparse.config import check
from raysparse.errors import ConfigError
from raysparse.models.sasrec import supernet as supernet_module
from raysparse.models.sasrec.config import Attention, SASRecConfig
from raysparse.models.sasrec.gates import Gate
from raysparse.models.sasrec.menu import SASRecSpaceConfig
from raysparse.models.sasrec.supernet import SASRecSupernet, SASRecSupernetConfig, export_subnet
from tests.models.sasrec.sequences import LENGTHS, offsets_of, values_of

SPACE: dict[str, Any] = {
    "widths": [4, 8],
    "head_dim": 4,
    "heads": [1, 3],
    "ffn_ratios": [1, 2],
    "depths": [1, 2],
    "lengths": [12],
    "attentions": ["softmax", "linear"],
    "dropout": 0.0,
}


def supernet_of(**keys: Any) -> SASRecSupernet:
    torch.manual_seed(1)
    space = check(SASRecSpaceConfig, {**SPACE, **keys}, "the space")
    supernet = SASRecSupernet(SASRecSupernetConfig(space=space)).eval()
    with torch.no_grad():
        for parameter in supernet.parameters():
            if parameter.dim() > 1:
                parameter.mul_(10.0)
        for module in supernet.modules():
            if isinstance(module, Gate):
                torch.nn.init.normal_(module.channels.weight)
    return supernet


def choices_of(space: SASRecSpaceConfig) -> list[SASRecConfig]:
    linear: list[Attention] = ["linear", "softmax"]
    softmax: list[Attention] = ["softmax", "softmax"]
    return [
        space.smallest,
        space.largest,
        space.network(8, 12, [1], [2], softmax[:1]),
        space.network(4, 12, [3, 1], [1, 2], linear),
        space.network(8, 12, [1, 3], [2, 1], softmax),
    ]


@pytest.mark.parametrize("gate", ["none", "paper", "context"])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_part_of_the_supernet_is_the_network_that_is_exported(gate: str, norm: str):
    supernet = supernet_of(gate=gate, norm=norm)
    values, offsets = values_of(LENGTHS, 8), offsets_of(LENGTHS)
    seen: list[torch.Tensor] = []
    for choice in choices_of(supernet.config.space):
        encoded = supernet.encode(choice, values, offsets)
        alone = export_subnet(supernet.network, choice).eval()
        width = choice.embedding_dim
        assert encoded.shape == (len(values), width)
        torch.testing.assert_close(alone(values[:, :width], offsets), encoded, rtol=1e-5, atol=1e-5)
        assert all(not encoded.equal(other[:, :width]) for other in seen if other.shape[1] >= width)
        seen.append(encoded)
    assert supernet(values, offsets).equal(supernet.encode(supernet.config.space.largest, values, offsets))


def test_a_step_changes_the_part_of_the_weights_that_it_used():
    supernet = supernet_of()
    space = supernet.config.space
    choice = space.network(4, 12, [1], [2], ["softmax"])
    supernet.encode(choice, values_of(LENGTHS, 8), offsets_of(LENGTHS)).square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in supernet.network.named_parameters()}
    assert all(gradient is None for name, gradient in gradients.items() if name.startswith("blocks.1."))
    inner = gradients["blocks.0.feed_forward.inner.weight"]
    assert inner is not None
    assert inner.shape == (16, 8)
    assert inner[:8, :4].abs().sum() > 0
    assert not inner[8:].any()
    assert not inner[:, 4:].any()
    project = gradients["blocks.0.attention.project.weight"]
    assert project is not None
    assert (project[:, :4, :4].abs().sum((1, 2)) > 0).all()
    assert not project[:, 4:].any()


def test_few_networks_are_kept_and_none_gets_weights():
    supernet = supernet_of()
    choice = supernet.config.space.smallest
    values, offsets = values_of(LENGTHS, 8), offsets_of(LENGTHS)
    encoded = supernet.encode(choice, values, offsets)
    kept = supernet._without_weights(choice)
    export_subnet(supernet.network, choice)
    assert supernet._without_weights(choice) is kept
    assert all(parameter.is_meta for parameter in kept.parameters())
    for more in range(1, supernet_module._NETWORKS_KEPT + 1):
        supernet._without_weights(choice.model_copy(update={"max_length": choice.max_length + more}))
    assert len(supernet._kept) == supernet_module._NETWORKS_KEPT
    assert supernet._without_weights(choice) is not kept
    assert supernet.encode(choice, values, offsets).equal(encoded)


def test_a_part_is_dropped_out_in_training_alone():
    supernet = supernet_of(dropout=0.5)
    choice = supernet.config.space.smallest
    values, offsets = values_of(LENGTHS, 8), offsets_of(LENGTHS)
    assert supernet.encode(choice, values, offsets).equal(supernet.encode(choice, values, offsets))
    supernet.train()
    assert not supernet.encode(choice, values, offsets).equal(supernet.encode(choice, values, offsets))
    supernet.eval()
    alone = export_subnet(supernet.network, choice).eval()
    torch.testing.assert_close(supernet.encode(choice, values, offsets), alone(values[:, :4], offsets))


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({"heads": [1, 1]}, "heads of different values; found 1, 1"),
        ({"widths": [6, 8]}, "widths that are multiples of 4; found 6"),
        ({"loss": {"kind": "bce"}}, "loss.kind full_softmax or sampled_softmax, .* found bce"),
    ],
)
def test_what_cannot_be_a_space_is_refused(keys: dict[str, Any], fault: str):
    with pytest.raises(ConfigError, match=fault):
        check(SASRecSpaceConfig, {**SPACE, **keys}, "the space")
