"""DCN-v2 (Wang et al. 2021, arXiv 2008.13535)."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from raysparse.config import Config
from raysparse.models.groups import Groups, Link
from raysparse.models.layers import mlp, mlp_links


class DCNConfig(Config):
    """Cross layers and a deep network side by side (the parallel form)."""

    kind: Literal["dcn"] = "dcn"
    embedding_dim: int = Field(default=16, ge=4, multiple_of=4)
    """Width of every table."""
    num_cross_layers: int = Field(default=3, ge=1)
    rank: int | None = Field(default=64, ge=1)
    """Rank of a cross layer's matrix (equation 2 of the paper); null: the full matrix (equation 1)."""
    deep: tuple[int, ...] = (256, 128)
    """Hidden widths of the deep network."""


class CrossLayer(nn.Module):
    """x0 * (W x + b) + x with W = U V where a rank is given: `[B, N]`, `[B, N]` to `[B, N]`."""

    def __init__(self, num_inputs: int, rank: int | None) -> None:
        super().__init__()
        self.project = nn.Linear(num_inputs, rank, bias=False) if rank is not None else nn.Identity()
        self.ranks = Groups(rank) if rank is not None else nn.Identity()
        self.expand = nn.Linear(rank if rank is not None else num_inputs, num_inputs)

    def forward(self, first: Tensor, current: Tensor) -> Tensor:
        """Return the next layer's input."""
        return torch.addcmul(current, first, self.expand(self.ranks(self.project(current))))


class DCN(nn.Module):
    """Dense features and pooled ids in, a logit out: `[B, I]`, `[B, F, D]` to `[B]`."""

    def __init__(self, config: DCNConfig, num_dense: int, num_features: int) -> None:
        super().__init__()
        num_inputs = num_dense + num_features * config.embedding_dim
        self.cross = nn.ModuleList(CrossLayer(num_inputs, config.rank) for _ in range(config.num_cross_layers))
        self.fields = Groups(num_features, config.embedding_dim)
        self.deep = mlp(num_inputs, config.deep)
        self.logit = nn.Linear(num_inputs + (num_inputs, *config.deep)[-1], 1)
        reader = Link(None, "deep.0", num_dense) if config.deep else Link(None, "logit", num_inputs + num_dense)
        self.links = {"fields": reader, **mlp_links("deep", len(config.deep), "logit", num_inputs)}
        if config.rank is not None:
            for layer in range(config.num_cross_layers):
                self.links[f"cross.{layer}.ranks"] = Link(f"cross.{layer}.project", f"cross.{layer}.expand")

    def forward(self, dense: Tensor, pooled: Tensor) -> Tensor:
        """Return the logits `[B]`."""
        first = torch.cat([dense, pooled.flatten(1)], dim=1)
        crossed = first
        for layer in self.cross:
            crossed = layer(first, crossed)
        # The dense features are few, the fields' embeddings many columns: only those are groups.
        deep = self.deep(torch.cat([dense, self.fields(pooled.flatten(1))], dim=1))
        return self.logit(torch.cat([crossed, deep], dim=1)).squeeze(1)
