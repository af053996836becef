"""DLRM (Naumov et al. 2019, arXiv 1906.00091)."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from raysparse.config import Config
from raysparse.models.groups import Groups, Link
from raysparse.models.layers import PairwiseDots, mlp, mlp_links


class DLRMConfig(Config):
    """Bottom network for the dense features, dot products of all pairs, top network."""

    kind: Literal["dlrm"] = "dlrm"
    embedding_dim: int = Field(default=16, ge=4, multiple_of=4)
    """Width of every table."""
    bottom: tuple[int, ...] = (64,)
    """Hidden widths of the dense features' network; a layer of `embedding_dim` follows."""
    top: tuple[int, ...] = (256, 128)
    """Hidden widths of the network after the interaction; one logit follows."""


class DLRM(nn.Module):
    """Dense features and pooled ids in, a logit out: `[B, I]`, `[B, F, D]` to `[B]`."""

    def __init__(self, config: DLRMConfig, num_dense: int, num_features: int) -> None:
        super().__init__()
        self.bottom = mlp(num_dense, (*config.bottom, config.embedding_dim)) if num_dense else None
        num_vectors = num_features + (self.bottom is not None)
        self.interaction = PairwiseDots(num_vectors)
        self.pairs = Groups(self.interaction.num_outputs)
        num_bottom = config.embedding_dim if self.bottom is not None else 0
        num_inputs = num_bottom + self.interaction.num_outputs
        self.top = nn.Sequential(mlp(num_inputs, config.top), nn.Linear((num_inputs, *config.top)[-1], 1))
        # The bottom network's last layer stays as wide as a table, with which it is multiplied.
        self.links = {
            **(mlp_links("bottom", len(config.bottom) + 1, None) if self.bottom is not None else {}),
            "pairs": Link(None, "top.0.0" if config.top else "top.1", num_bottom),
            **mlp_links("top.0", len(config.top), "top.1"),
        }

    def forward(self, dense: Tensor, pooled: Tensor) -> Tensor:
        """Return the logits `[B]`."""
        if self.bottom is None:
            return self.top(self.pairs(self.interaction(pooled))).squeeze(1)
        bottom = self.bottom(dense)
        products = self.pairs(self.interaction(bottom.unsqueeze(1), pooled))
        return self.top(torch.cat([bottom, products], dim=1)).squeeze(1)
