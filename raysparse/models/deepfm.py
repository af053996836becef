"""DeepFM (Guo et al. 2017, arXiv 1703.04247)."""

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from raysparse.config import Config
from raysparse.models.groups import Groups, Link
from raysparse.models.layers import DenseVectors, mlp, mlp_links


class DeepFMConfig(Config):
    """A factorization machine and a deep network that read the same embeddings; their logits are added."""

    kind: Literal["deepfm"] = "deepfm"
    embedding_dim: int = Field(default=16, ge=4, multiple_of=4)
    """Width of every table."""
    deep: tuple[int, ...] = (256, 128)
    """Hidden widths of the deep network."""


class DeepFM(nn.Module):
    """Dense features and pooled ids in, a logit out: `[B, I]`, `[B, F, D]` to `[B]`.

    A dense feature's vector is a learned one times its value. The first-order weight of an id is a learned
    projection of its embedding, one per feature (FwFM, Pan et al. 2018, arXiv 1806.03514, section 3.3), which
    needs no second look-up.
    """

    def __init__(self, config: DeepFMConfig, num_dense: int, num_features: int) -> None:
        super().__init__()
        num_vectors = num_dense + num_features
        num_inputs = num_vectors * config.embedding_dim
        self.vectors = DenseVectors(num_dense, config.embedding_dim)
        self.first_order = nn.Linear(num_inputs, 1)
        self.fields = Groups(num_vectors, config.embedding_dim)
        self.deep = nn.Sequential(mlp(num_inputs, config.deep), nn.Linear((num_inputs, *config.deep)[-1], 1))
        self.links = {
            "fields": Link(None, "deep.0.0" if config.deep else "deep.1"),
            **mlp_links("deep.0", len(config.deep), "deep.1"),
        }

    def forward(self, dense: Tensor, pooled: Tensor) -> Tensor:
        """Return the logits `[B]`."""
        vectors = self.vectors(dense, pooled)
        flat = vectors.flatten(1)
        # Equation 2 by the identity of Rendle 2010: pairs = ((sum v)^2 - sum v^2) / 2.
        second_order = 0.5 * (vectors.sum(1).square() - vectors.square().sum(1)).sum(1)
        return (self.first_order(flat) + self.deep(self.fields(flat))).squeeze(1) + second_order
