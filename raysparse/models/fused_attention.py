"""Softmax attention by torch's fused kernel, whose small products a CPU always takes at full precision."""

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention

from raysparse.models.precision import highest_precision


def fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attended_to: Tensor | None = None,
    *,
    causal: bool = False,
    dropout: float = 0.0,
) -> Tensor:
    """Attend `[N, H, L, d]` to what a mask of booleans says, to all, or each to itself and those before; as large.

    On a CPU the kernel runs with the precision `highest`, whatever `scaling.matmul_precision` is: with `medium` each of
    its tiny products goes through oneDNN, and it takes up to 10 times as long (jobs/bench/attention.py). With dropout
    torch takes large products in its place, which stay as they are.
    """
    if query.is_cpu and torch.get_float32_matmul_precision() == "medium" and not dropout:
        return cast(Tensor, _AtHighestPrecision.apply(query, key, value, attended_to, causal))
    return scaled_dot_product_attention(query, key, value, attended_to, dropout, causal)


class _AtHighestPrecision(torch.autograd.Function):
    """Keeps torch's graph, to go back through it with the same precision."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, attended_to: Tensor | None, causal: bool
    ) -> Tensor:
        ctx.inputs = [part.detach().requires_grad_(part.requires_grad) for part in (query, key, value)]
        query, key, value = ctx.inputs
        with highest_precision(), torch.set_grad_enabled(any(ctx.needs_input_grad)):
            ctx.attended = scaled_dot_product_attention(query, key, value, attended_to, is_causal=causal)
        return ctx.attended.detach()

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]: torch's decorator takes the names away
        ctx: Any, *of_attended: Tensor
    ) -> tuple[Tensor | None, ...]:
        asked = [part for part in ctx.inputs if part.requires_grad]
        with highest_precision():
            gradients = iter(torch.autograd.grad(ctx.attended, asked, of_attended))
        return *(next(gradients) if part.requires_grad else None for part in ctx.inputs), None, None
