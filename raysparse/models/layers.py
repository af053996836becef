"""Layers that several models share."""

from typing import Any

import torch
from torch import Tensor, nn

from raysparse.models.groups import Groups, Link


def mlp(num_inputs: int, widths: tuple[int, ...]) -> nn.Sequential:
    """Fully connected layers with ReLU after each: `[B, num_inputs]` to `[B, widths[-1]]`.

    Every layer's neurons are groups; the modules repeat `nn.Linear`, `nn.ReLU`, `Groups`.
    """
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(num_inputs, width), nn.ReLU(inplace=True), Groups(width)]
        num_inputs = width
    return nn.Sequential(*layers)


def mlp_links(name: str, num_layers: int, consumer: str | None, first_column: int = 0) -> dict[str, Link]:
    """The links of an `mlp` that is called `name` in its head and read by `consumer`.

    Without a consumer, the last layer's neurons are no groups: others depend on how many they are.
    """
    links: dict[str, Link] = {}
    for layer in range(num_layers):
        producer, place = f"{name}.{3 * layer}", f"{name}.{3 * layer + 2}"
        if layer < num_layers - 1:
            links[place] = Link(producer, f"{name}.{3 * layer + 3}")
        elif consumer is not None:
            links[place] = Link(producer, consumer, first_column)
    return links


class DenseVectors(nn.Module):
    """A vector for each dense feature, a learned one times its value, before those of ids: `[B, I + F, D]`."""

    def __init__(self, num_dense: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_dense, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the vectors."""
        nn.init.normal_(self.weight, std=0.01)

    def forward(self, dense: Tensor, pooled: Tensor) -> Tensor:
        """Return the vectors of dense features `[B, I]` and pooled ids `[B, F, D]`."""
        return torch.cat([dense.unsqueeze(2) * self.weight, pooled], dim=1)


class PairwiseDots(nn.Module):
    """Dot products of all pairs of F vectors: `[B, F, D]` to `[B, F(F-1)/2]` (arXiv 1906.00091, section 2.1.3)."""

    def __init__(self, num_vectors: int) -> None:
        super().__init__()
        rows, columns = torch.tril_indices(num_vectors, num_vectors, offset=-1)
        # Where in the [F, F] matrix each pair stands, and which pair (or the zero after the last) each place holds.
        place_of_pair = rows * num_vectors + columns
        pair_of_place = torch.full((num_vectors, num_vectors), len(rows))
        pair_of_place[rows, columns] = torch.arange(len(rows))
        pair_of_place[columns, rows] = torch.arange(len(rows))
        self.num_outputs = len(rows)
        self.register_buffer("place_of_pair", place_of_pair, persistent=False)
        self.register_buffer("pair_of_place", pair_of_place.flatten(), persistent=False)

    def forward(self, *parts: Tensor) -> Tensor:
        """Return the products of the vectors of all parts `[B, F_i, D]`, pair (1, 0) first, then (2, 0), (2, 1), ..."""
        return _PairwiseDots.apply(self.place_of_pair, self.pair_of_place, *parts)


class _PairwiseDots(torch.autograd.Function):
    """The products with a backward that gathers instead of scattering, and multiplies once instead of twice.

    Parts that want no gradient cost none, as a pruned child's embeddings: 22 instead of 49 ms, forward and backward,
    for 4096 rows of 26 tables.
    """

    @staticmethod
    def forward(ctx: Any, place_of_pair: Tensor, pair_of_place: Tensor, *parts: Tensor) -> Tensor:
        vectors, *others = parts
        if others:
            vectors = torch.cat(parts, dim=1)
        ctx.save_for_backward(vectors, pair_of_place)
        ctx.sizes = [part.shape[1] for part in parts]
        products = torch.bmm(vectors, vectors.transpose(1, 2))
        return products.flatten(1).index_select(1, place_of_pair)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        vectors, pair_of_place = ctx.saved_tensors
        (gradient,) = gradients
        num_vectors = vectors.shape[1]
        padded = nn.functional.pad(gradient, (0, 1))

        def of_rows(first: int, size: int) -> Tensor:
            places = pair_of_place[first * num_vectors : (first + size) * num_vectors]
            return torch.bmm(padded.index_select(1, places).view(-1, size, num_vectors), vectors)

        wanted = ctx.needs_input_grad[2:]
        if all(wanted):
            return None, None, *of_rows(0, num_vectors).split(ctx.sizes, dim=1)
        firsts = [sum(ctx.sizes[:part]) for part in range(len(ctx.sizes))]
        of_parts = zip(wanted, firsts, ctx.sizes, strict=True)
        return None, None, *(of_rows(first, size) if want else None for want, first, size in of_parts)
