"""xDeepFM (Lian et al. 2018, arXiv 1803.05170)."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from raysparse.config import Config
from raysparse.models.groups import Groups, Link
from raysparse.models.layers import DenseVectors, mlp, mlp_links


class XDeepFMConfig(Config):
    """A linear part, a compressed interaction network and a deep network; their logits are added."""

    kind: Literal["xdeepfm"] = "xdeepfm"
    embedding_dim: int = Field(default=16, ge=4, multiple_of=4)
    """Width of every table."""
    cin: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(64, 64), min_length=1)
    """Feature maps of each layer of the compressed interaction network; layer k makes products of k + 1 fields."""
    deep: tuple[int, ...] = (256, 128)
    """Hidden widths of the deep network."""


class InteractionLayer(nn.Module):
    """Weighted sums of all products of two sets of maps (equation 6): `[N, H]`, `[N, M]` to `[N, K]`.

    The products, `H * M` for each of the N positions, exist for a few positions at a time, and are made again for
    the backward pass.
    """

    def __init__(self, num_previous: int, num_first: int, num_maps: int) -> None:
        super().__init__()
        # Column i * num_first + j weighs the product of map i of the previous layer and field j.
        self.weight = nn.Parameter(torch.empty(num_maps, num_previous * num_first))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights."""
        bound = self.weight.shape[1] ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, previous: Tensor, first: Tensor) -> Tensor:
        """Return the next layer's maps."""
        return _WeighProducts.apply(previous, first, self.weight)


class CompressedInteractions(nn.Module):
    """CIN: every layer's maps, summed over the embedding (equations 6 and 7): `[B, M, D]` to `[B, sum(widths)]`.

    All layers are linear in their products, as in the paper (identity as activation). Of the last layer only the sums
    over the embedding are read, and these are weighted sums of dot products: D times fewer multiply-adds than its
    maps would take.
    """

    def __init__(self, num_vectors: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        inputs = (num_vectors, *widths)
        self.hidden = nn.ModuleList(
            InteractionLayer(inputs[layer], num_vectors, width) for layer, width in enumerate(widths[:-1])
        )
        self.last = nn.Linear(inputs[-2] * num_vectors, widths[-1], bias=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """Return the sums, layer by layer."""
        batch_size, _, width = vectors.shape
        first = vectors.transpose(1, 2).flatten(0, 1)
        previous = first
        sums: list[Tensor] = []
        for layer in self.hidden:
            previous = layer(previous, first)
            sums.append(previous.unflatten(0, (batch_size, width)).sum(1))
        dots = torch.bmm(previous.unflatten(0, (batch_size, width)).transpose(1, 2), vectors.transpose(1, 2))
        return torch.cat([*sums, self.last(dots.flatten(1))], dim=1)


class XDeepFM(nn.Module):
    """Dense features and pooled ids in, a logit out: `[B, I]`, `[B, F, D]` to `[B]`.

    A dense feature's vector is a learned one times its value. The linear part reads the embeddings, as that of DeepFM
    does, which needs no second look-up.
    """

    def __init__(self, config: XDeepFMConfig, num_dense: int, num_features: int) -> None:
        super().__init__()
        num_vectors = num_dense + num_features
        num_inputs = num_vectors * config.embedding_dim
        self.vectors = DenseVectors(num_dense, config.embedding_dim)
        self.first_order = nn.Linear(num_inputs, 1)
        self.cin = CompressedInteractions(num_vectors, config.cin)
        self.cin_logit = nn.Linear(sum(config.cin), 1, bias=False)
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
        logits = self.first_order(flat) + self.cin_logit(self.cin(vectors)) + self.deep(self.fields(flat))
        return logits.squeeze(1)


CHUNK_PRODUCTS = 2**20
"""Products in memory at a time: 4 MiB of float32, about a core's cache."""


class _WeighProducts(torch.autograd.Function):
    """The sums over i, j of weight[k, i, j] * previous[n, i] * first[n, j]."""

    @staticmethod
    def forward(ctx: Any, previous: Tensor, first: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(previous, first, weight)
        maps = previous.new_empty(len(previous), len(weight))
        for rows in _chunks(previous, first):
            maps[rows] = _products(previous[rows], first[rows]) @ weight.T
        return maps

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor]:
        previous, first, weight = ctx.saved_tensors
        (gradient,) = gradients
        # Fields that nothing learns from spare a third of the work.
        inputs_learn = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        by_previous, by_first, by_weight = (torch.zeros_like(tensor) for tensor in (previous, first, weight))
        for rows in _chunks(previous, first):
            by_weight.addmm_(gradient[rows].T, _products(previous[rows], first[rows]))
            if inputs_learn:
                by_product = (gradient[rows] @ weight).unflatten(1, (previous.shape[1], first.shape[1]))
                by_previous[rows] = torch.bmm(by_product, first[rows].unsqueeze(2)).squeeze(2)
                by_first[rows] = torch.bmm(previous[rows].unsqueeze(1), by_product).squeeze(1)
        return (by_previous, by_first, by_weight) if inputs_learn else (None, None, by_weight)


def _products(previous: Tensor, first: Tensor) -> Tensor:
    return (previous.unsqueeze(2) * first.unsqueeze(1)).flatten(1)


def _chunks(previous: Tensor, first: Tensor) -> Iterator[slice]:
    step = max(1, CHUNK_PRODUCTS // (previous.shape[1] * first.shape[1]))
    for start in range(0, len(previous), step):
        yield slice(start, start + step)
