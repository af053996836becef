"""Linear maps that are used in part: the first rows, and the first columns of some pieces."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from raysparse.models.nasrec.shape import WHOLE, Pieces
from raysparse.models.nasrec.sizes import Role

Columns = tuple[tuple[str, int], ...]
"""The pieces of a weight that an input belongs to, in its order, and how many columns of each it has."""

ENDS: frozenset[Role] = frozenset({"pairs", "gated", "sum"})
"""Ends of operators: what leaves them is normalised even where the map itself is skipped."""


class Projection(nn.Module):
    """A linear map, then layer norm over what it made; a bias instead where the choice has no layer norm.

    Every source of inputs has a piece of the weight of its own, so that one that is not read gets no gradient. A
    subnet's only piece is its whole weight, used as it stands.
    """

    def __init__(
        self, role: Role, pieces: Pieces, num_outputs: int, layer_norms: tuple[bool, ...], skipped: bool = False
    ) -> None:
        super().__init__()
        self.role: Role = role
        self.num_outputs = num_outputs
        if skipped:  # in a subnet: what it would have mapped has the right width already
            pieces = {}
            layer_norms = tuple(norm for norm in layer_norms if norm and role in ENDS)
        # Pairs, since a dict's order is not kept.
        self.weights = nn.ParameterDict(
            (name, nn.Parameter(torch.empty(num_outputs, width))) for name, width in pieces.items()
        )
        self.bias = nn.Parameter(torch.zeros(num_outputs)) if False in layer_norms else None
        self.norm_weight = nn.Parameter(torch.ones(num_outputs)) if True in layer_norms else None
        self.norm_bias = nn.Parameter(torch.zeros(num_outputs)) if True in layer_norms else None
        # Xavier-uniform (Glorot and Bengio 2010, equation 16) of the matrix that the pieces make.
        bound = (6.0 / max(1, num_outputs + sum(pieces.values()))) ** 0.5
        for weight in self.weights.values():
            nn.init.uniform_(weight, -bound, bound)

    def forward(
        self, inputs: Tensor, columns: Columns, num_outputs: int, layer_norm: bool, skip: bool = False
    ) -> Tensor:
        """Map `[..., sum of columns]` to `[..., num_outputs]`; where skipped, only an operator's last norm is left."""
        if skip:
            return self.normalised(inputs, layer_norm) if self.role in ENDS else inputs
        weight = self.sliced(columns, num_outputs)
        if layer_norm:
            return self.normalised(nn.functional.linear(inputs, weight), layer_norm)
        bias = None if self.bias is None else self.bias[:num_outputs]
        return nn.functional.linear(inputs, weight, bias)

    def normalised(self, outputs: Tensor, layer_norm: bool) -> Tensor:
        """Normalise over the last dimension, all of which is active; nothing where the choice has no layer norm."""
        if not layer_norm:
            return outputs
        assert self.norm_weight is not None
        assert self.norm_bias is not None
        width = outputs.shape[-1]
        return nn.functional.layer_norm(outputs, (width,), self.norm_weight[:width], self.norm_bias[:width])

    def sliced(self, columns: Columns, num_outputs: int) -> Tensor:
        """Return the weight `[num_outputs, sum of columns]` that a choice uses."""
        if WHOLE in self.weights:
            weight = self.weights[WHOLE]
            num_columns = sum(width for _, width in columns)
            return weight if weight.shape == (num_outputs, num_columns) else weight[:num_outputs, :num_columns]
        pieces = [self.weights[name] for name, _ in columns]
        return _JoinSlices.apply(num_outputs, tuple(width for _, width in columns), *pieces)

    @torch.no_grad()
    def take(self, other: "Projection", columns: Columns) -> None:
        """Copy the slices of a larger projection, whose columns come in this one's order."""
        if WHOLE in self.weights:
            self.weights[WHOLE].copy_(other.sliced(columns, self.num_outputs))
        for name in ("bias", "norm_weight", "norm_bias"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine is not None:
                mine.copy_(theirs[: self.num_outputs])

    def extra_repr(self) -> str:
        """Role and sizes, for printing."""
        pieces = ", ".join(f"{name}: {weight.shape[1]}" for name, weight in self.weights.items())
        return f"{self.role}, {{{pieces}}} -> {self.num_outputs}"


class _JoinSlices(torch.autograd.Function):
    """The first rows and columns of some weights side by side; one gradient per weight, filled once."""

    @staticmethod
    def forward(ctx: Any, num_rows: int, widths: tuple[int, ...], *weights: Tensor) -> Tensor:
        ctx.widths = widths
        ctx.shapes = [weight.shape for weight in weights]
        return torch.cat([weight[:num_rows, :width] for weight, width in zip(weights, widths, strict=True)], dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        return (None, None, *_spread(gradient, ctx.widths, ctx.shapes))


def _spread(gradient: Tensor, widths: tuple[int, ...], shapes: list[torch.Size]) -> Iterator[Tensor]:
    for part, shape in zip(gradient.split(list(widths), dim=1), shapes, strict=True):
        if part.shape == shape:
            yield part.contiguous()
            continue
        full = gradient.new_zeros(shape)
        full[: part.shape[0], : part.shape[1]] = part
        yield full
