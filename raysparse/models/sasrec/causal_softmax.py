"""Causal softmax attention: torch's, and on a CPU in parts that stay in cache."""

from collections.abc import Iterator
from math import log
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention

_SCORES_AT_A_TIME = 2**18
"""Scores that are held at a time, 1 MiB: with four times as many, 64 histories of 200 items and four heads take a third
longer, with half as many a fifth."""
_QUERIES_AT_A_TIME = 64
"""Of a longer history a part's items see those before the part's end alone: for 512 items half of the scores."""


def causal_softmax(query: Tensor, key: Tensor, value: Tensor, dropout: float = 0.0) -> Tensor:
    """Attend `[N, H, L, d]`, each item to itself and to those before it, less what is dropped: to `[N, H, L, d]`.

    Torch's own kernel for CPUs multiplies tiny matrices one by one. With `scaling.matmul_precision: medium` each goes
    through oneDNN, which takes 2 to 9 times as long as what is here (jobs/bench/attention.py). Otherwise, and with
    dropout or on a GPU, it is torch's.
    """
    if dropout or not query.is_cpu or torch.get_float32_matmul_precision() != "medium":
        return scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
    by_head = (part.flatten(0, 1) for part in (query, key, value))
    return cast(Tensor, _CausalSoftmax.apply(*by_head)).unflatten(0, query.shape[:2])


class _CausalSoftmax(torch.autograd.Function):
    """Keeps no scores: on the way back they are worked out again, as is usual (FlashAttention, arXiv 2205.14135, 3.1).

    With e = exp(s - max s) and their sum z, probabilities are p = e / z, and with the gradient g of an output o the
    gradient by a score is p (g v' - g o').
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        attended, sums = torch.empty_like(value), value.new_empty(*value.shape[:2], 1)
        for rows, queries, seen in _parts(query):
            powers = _powers(query[rows, queries], key[rows, seen])
            sums[rows, queries] = powers.sum(2, keepdim=True)
            attended[rows, queries] = torch.bmm(powers, value[rows, seen]).div_(sums[rows, queries])
        ctx.save_for_backward(query, key, value, attended, sums)
        return attended

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]: torch's decorator takes the names away
        ctx: Any, *of_attended: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, attended, sums = cast(tuple[Tensor, ...], ctx.saved_tensors)
        weighted = of_attended[0] / sums
        # Of what all scores of an item have in common; by score it would be a way over all of them.
        common = (weighted * attended).sum(2, keepdim=True)
        of_query, of_key, of_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for rows, queries, seen in _parts(query):
            powers = _powers(query[rows, queries], key[rows, seen])
            of_value[rows, seen].baddbmm_(powers.transpose(1, 2), weighted[rows, queries])
            of_scores = torch.bmm(weighted[rows, queries], value[rows, seen].transpose(1, 2))
            of_scores.sub_(common[rows, queries]).mul_(powers)
            of_query[rows, queries] = torch.bmm(of_scores, key[rows, seen])
            of_key[rows, seen].baddbmm_(of_scores.transpose(1, 2), query[rows, queries])
        scale = query.shape[2] ** -0.5
        return of_query.mul_(scale), of_key.mul_(scale), of_value


def _parts(query: Tensor) -> Iterator[tuple[slice, slice, slice]]:
    """Yield some sequences, some of their items, and all that these may see."""
    num_sequences, length, _ = query.shape
    for start in range(0, length, _QUERIES_AT_A_TIME):
        stop = min(start + _QUERIES_AT_A_TIME, length)
        size = max(1, _SCORES_AT_A_TIME // ((stop - start) * stop))
        for first in range(0, num_sequences, size):
            yield slice(first, first + size), slice(start, stop), slice(0, stop)


def _powers(query: Tensor, key: Tensor) -> Tensor:
    """Return the exponentials of some items' scores `[N, Q, K]`, less their maxima; the items are the last of the keys.

    Powers are of 2, as in full softmax: torch's exp takes five times as long.
    """
    num_queries, width = query.shape[1:]
    scores = torch.bmm(query * (width**-0.5 / log(2.0)), key.transpose(1, 2))
    scores[:, :, -num_queries:] += scores.new_full((num_queries, num_queries), float("-inf")).triu_(1)
    return scores.sub_(scores.amax(dim=2, keepdim=True)).exp2_()
