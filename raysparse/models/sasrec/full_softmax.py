"""The softmax over all items, without all of its scores at once."""

from collections.abc import Callable, Iterator
from math import log
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_SCORES_AT_A_TIME = {"cpu": 2**20, "cuda": 2**25}
"""Scores that are held at a time. 4 MiB stay in a core's cache: the way there and back of 1,500 targets of 12,101 items
took 1.7 times as long with all scores at once. For a GPU 128 MiB, of which no time has been measured."""
_TARGETS_AT_A_TIME = 64
"""At least: products of fewer rows read the items more often than they compute with them."""
_LOG_2 = log(2.0)
_TEACHER_SCORES = 2**25
"""Log probabilities of a teacher that are kept, 128 MiB; more are worked out whenever they are asked for."""

Teacher = Callable[[Tensor], Tensor]
"""Natural logs of the probabilities `[Q, K]` that a network gives K items, for some of a step's targets, by their
places `[Q]`; without gradients."""


def full_softmax(
    encoded: Tensor,
    items: Tensor,
    targets: Tensor,
    teacher: tuple[Teacher, Tensor] | None = None,
    distillation: float = 1.0,
) -> Tensor:
    """Return the sum of the cross-entropies of targets `[P]` among all items; row 0 of `items` `[M + 1, D]` is none.

    With a `teacher`, and the places `[P]` of the targets among its own, Kullback and Leibler's divergence of its
    probabilities is added, times `distillation`. Never all scores are held, and they are worked out once: gradients are
    there before the way back, which is why it is a sum.
    """
    return cast(Tensor, _FullSoftmax.apply(encoded, items, targets, teacher, distillation))


def full_softmax_teacher(encoded: Tensor, items: Tensor) -> Teacher:
    """Return what encodings `[P, W]` make of all items `[M + 1, W]`: worked out here for all that learn from it.

    Where these are more scores than are kept, they are worked out whenever they are asked for.
    """
    encoded, items = encoded.detach(), items.detach()
    if len(encoded) * len(items) > _TEACHER_SCORES:
        return lambda places: torch.log_softmax(encoded[places] @ items[1:].T, dim=1)
    kept = torch.log_softmax(encoded @ items[1:].T, dim=1)
    return lambda places: kept[places]


class _FullSoftmax(torch.autograd.Function):
    """Works scores out in parts, and gradients with them.

    Of the loss -log p_t + d * sum_k q_k (log q_k - log p_k) the gradient by score k is (1 + d) p_k - [k = t] - d q_k,
    since the q of a teacher sum to one. With e_k = exp(s_k - max s) and their sum z, p_k is e_k / z.

    Powers and logs are of 2, as scores are divided by log 2: torch's exp2 is as exact as its exp, and takes 0.14 ms for
    a million scores instead of 0.66 (AMD EPYC with AVX-512, one thread).
    """

    @staticmethod
    def forward(
        ctx: Any,
        encoded: Tensor,
        items: Tensor,
        targets: Tensor,
        teacher: tuple[Teacher, Tensor] | None,
        distillation: float,
    ) -> Tensor:
        loss, gradients = encoded.new_zeros(()), _Gradients(encoded, items, targets, ctx.needs_input_grad[:2])
        for part, scores in _scores(encoded / _LOG_2, items):
            scores.sub_(scores.amax(dim=1, keepdim=True))
            of_targets = scores.gather(1, targets[part].unsqueeze(1) - 1)
            if teacher is None:
                sums = scores.exp2_().sum(1, keepdim=True)
                loss += (sums.log2() - of_targets).sum()
                gradients.add(part, scores, 1.0 / sums)
                continue
            logs = teacher[0](teacher[1][part]) / _LOG_2
            probabilities = logs.exp2()
            divergence = (probabilities * (logs - scores)).sum()
            sums = scores.exp2_().sum(1, keepdim=True)
            loss += ((1.0 + distillation) * sums.log2() - of_targets).sum() + distillation * divergence
            of_scores = scores.mul_((1.0 + distillation) / sums).sub_(probabilities, alpha=distillation)
            gradients.add(part, of_scores, torch.ones_like(sums))
        ctx.save_for_backward(*gradients.all())
        return loss * _LOG_2

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]: torch's decorator takes the names away
        ctx: Any, *of_loss: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        of_encoded, of_items = (None if one is None else one * of_loss[0] for one in ctx.saved_tensors)
        return of_encoded, of_items, None, None, None


class _Gradients:
    """Of a sum of losses, by what is encoded and by the items, where they are asked for."""

    def __init__(self, encoded: Tensor, items: Tensor, targets: Tensor, needed: tuple[bool, ...]) -> None:
        self._encoded, self._items, self._targets = encoded, items, targets
        self._of_encoded = torch.empty_like(encoded) if needed[0] else None
        self._of_items = torch.zeros_like(items) if needed[1] else None

    def add(self, part: slice, of_scores: Tensor, weights: Tensor) -> None:
        """Take gradients by scores `[Q, M]` of some targets, times weights `[Q, 1]`, without the -1 of their own."""
        # Weights and the targets' own items are for small tensors: each way over the scores takes as long as an exp.
        encoded, targets = self._encoded[part], self._targets[part]
        if self._of_encoded is not None:
            of_encoded = torch.mm(of_scores, self._items[1:], out=self._of_encoded[part])
            of_encoded.mul_(weights).sub_(self._items[targets])
        if self._of_items is not None:
            self._of_items[1:].addmm_(of_scores.T, encoded * weights)
            self._of_items.index_add_(0, targets, encoded, alpha=-1.0)

    def all(self) -> tuple[Tensor | None, Tensor | None]:
        """Return them."""
        return self._of_encoded, self._of_items


def _scores(encoded: Tensor, items: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield the scores `[Q, M]` of some targets after the other, in one place in memory."""
    limit = _SCORES_AT_A_TIME["cpu" if encoded.is_cpu else "cuda"]
    size = min(max(_TARGETS_AT_A_TIME, limit // len(items)), max(1, len(encoded)))
    place = encoded.new_empty(size, len(items) - 1)
    for start in range(0, len(encoded), size):
        part = slice(start, min(start + size, len(encoded)))
        yield part, torch.mm(encoded[part], items[1:].T, out=place[: part.stop - start])
