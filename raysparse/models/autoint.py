"""AutoInt+ (Song et al. 2019, arXiv 1810.11921)."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from raysparse.config import Config
from raysparse.models.groups import Groups, Link
from raysparse.models.layers import DenseVectors, mlp, mlp_links


class AutoIntConfig(Config):
    """Self-attention over the fields' vectors, and a deep network beside it; their logits are added."""

    kind: Literal["autoint"] = "autoint"
    embedding_dim: int = Field(default=16, ge=4, multiple_of=4)
    """Width of every table."""
    num_layers: int = Field(default=3, ge=1)
    """Interacting layers, one after the other."""
    num_heads: int = Field(default=2, ge=1)
    """Attention heads of an interacting layer."""
    head_dim: int = Field(default=32, ge=1)
    """Width of a head: a layer makes vectors of `num_heads * head_dim`."""
    deep: tuple[int, ...] = (256, 128)
    """Hidden widths of the deep network."""


class InteractingLayer(nn.Module):
    """ReLU of multi-head self-attention plus a projected residual (equations 5 to 8): `[B, M, D]` to `[B, M, H * d]`.

    As in the equations, the products of queries and keys are not scaled, and the projections have neither bias nor
    activation.
    """

    def __init__(self, num_inputs: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        # Queries, keys, values and residual read the same vectors: one matrix, rows in this order, head by head.
        self.project = nn.Linear(num_inputs, 4 * num_heads * head_dim, bias=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """Return the next layer's vectors."""
        query, key, value, residual = self.project(vectors).chunk(4, dim=2)
        # For few fields PyTorch's fused attention is no faster on a CPU, and its products are not counted as a cost.
        similar = torch.softmax(self._by_head(query) @ self._by_head(key).transpose(2, 3), dim=3)
        attended = similar @ self._by_head(value)
        return torch.relu(residual + attended.transpose(1, 2).flatten(2))

    def _by_head(self, projected: Tensor) -> Tensor:
        return projected.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class AutoInt(nn.Module):
    """Dense features and pooled ids in, a logit out: `[B, I]`, `[B, F, D]` to `[B]`.

    A dense feature's vector is a learned one times its value (equation 4).
    """

    def __init__(self, config: AutoIntConfig, num_dense: int, num_features: int) -> None:
        super().__init__()
        num_vectors = num_dense + num_features
        num_inputs = num_vectors * config.embedding_dim
        self.vectors = DenseVectors(num_dense, config.embedding_dim)
        width = config.num_heads * config.head_dim
        self.attention = nn.Sequential(
            *(
                InteractingLayer(config.embedding_dim if layer == 0 else width, config.num_heads, config.head_dim)
                for layer in range(config.num_layers)
            )
        )
        self.attention_logit = nn.Linear(num_vectors * width, 1)
        self.fields = Groups(num_vectors, config.embedding_dim)
        self.deep = nn.Sequential(mlp(num_inputs, config.deep), nn.Linear((num_inputs, *config.deep)[-1], 1))
        self.links = {
            "fields": Link(None, "deep.0.0" if config.deep else "deep.1"),
            **mlp_links("deep.0", len(config.deep), "deep.1"),
        }

    def forward(self, dense: Tensor, pooled: Tensor) -> Tensor:
        """Return the logits `[B]`."""
        vectors = self.vectors(dense, pooled)
        attended = self.attention_logit(self.attention(vectors).flatten(1))
        return (attended + self.deep(self.fields(vectors.flatten(1)))).squeeze(1)
