"""One encoder whose weights hold those of all networks of a space: each is the first part of every weight."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from raysparse.config import Config
from raysparse.models.groups import Link
from raysparse.models.sasrec.config import LossConfig, SASRecConfig, SoftmaxConfig
from raysparse.models.sasrec.encoder import SASRec
from raysparse.models.sasrec.menu import SASRecSpaceConfig

_NETWORKS_KEPT = 64
"""Of those that were asked for last: the smallest one comes back every step, most drawn ones never."""


class SASRecSupernetConfig(Config):
    """The shared weights of all networks of a space; it needs a callback of kind `sandwich`."""

    kind: Literal["sasrec_supernet"] = "sasrec_supernet"
    space: SASRecSpaceConfig = SASRecSpaceConfig()
    """What the networks may choose from."""
    distillation: float = Field(default=1.0, ge=0)
    """Weight of the divergence of a smaller network's probabilities from those of the largest one, beside its loss."""
    shared_loss: SoftmaxConfig | None = None
    """What the shared weights learn by; null: `space.loss`, by which networks alone learn. A step learns several
    networks, so that a full softmax takes as many times as long; a sampled one is there for that."""
    hold_out_last: bool = False
    """Whether the last target of each row is not learned, so that a search can choose by it."""

    @property
    def embedding_dim(self) -> int:
        """Width of the table."""
        return max(self.space.widths)

    @property
    def max_length(self) -> int:
        """Items of a history that are read at most."""
        return max(self.space.lengths)

    @property
    def loss(self) -> LossConfig:
        """What training descends on."""
        return self.shared_loss or self.space.loss


class SASRecSupernet(nn.Module):
    """The largest network of a space, which also computes any other one with the first part of each of its weights.

    `choices` are set from outside, between steps, the same on all ranks: the largest one, and those that are trained
    beside it. It answers as an encoder for the largest.
    """

    def __init__(self, config: SASRecSupernetConfig) -> None:
        super().__init__()
        self.config = config
        self.network = SASRec(config.space.largest)
        self.choices: tuple[SASRecConfig, ...] = (config.space.largest,)
        self.links: dict[str, Link] = {}
        self._kept: dict[SASRecConfig, SASRec] = {}

    def forward(self, values: Tensor, offsets: Tensor, wanted: Tensor | None = None) -> Tensor:
        """Encode with the largest network."""
        return self.network(values, offsets, wanted)

    def encode(self, choice: SASRecConfig, values: Tensor, offsets: Tensor, wanted: Tensor | None = None) -> Tensor:
        """Encode `[T, D]`, of which a network reads the first channels, as a choice: to `[T, W]` or `[P, W]`."""
        if choice == self.network.config:
            return self.network(values, offsets, wanted)
        network = self._without_weights(choice).train(self.training)
        weights = shared_weights(self.network, network)
        return functional_call(network, weights, (values[:, : choice.embedding_dim], offsets, wanted))

    def _without_weights(self, choice: SASRecConfig) -> SASRec:
        """A network on `meta`; those that were asked for last are kept, in that order."""
        network = self._kept.pop(choice, None)
        if network is None:
            network = _empty(choice)
        self._kept[choice] = network
        if len(self._kept) > _NETWORKS_KEPT:
            del self._kept[next(iter(self._kept))]
        return network


def shared_weights(network: SASRec, part: SASRec) -> dict[str, Tensor]:
    """Return by name the first part of each of a network's weights, as large as that of a smaller one; views."""
    whole = dict(network.named_parameters())
    return {
        name: whole[name][tuple(slice(size) for size in parameter.shape)] for name, parameter in part.named_parameters()
    }


@torch.no_grad()
def export_subnet(network: SASRec, choice: SASRecConfig) -> SASRec:
    """Return a choice alone, with copies of the weights that it shares with a larger network."""
    subnet = _empty(choice).to_empty(device=next(network.parameters()).device)
    subnet.load_state_dict(shared_weights(network, subnet))
    return subnet


def _empty(choice: SASRecConfig) -> SASRec:
    with torch.device("meta"):
        return SASRec(choice)
