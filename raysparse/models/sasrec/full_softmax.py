"""The softmax over all items, without all of its scores at once."""

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_SCORES_AT_A_TIME = {"cpu": 2**20, "cuda": 2**25}
"""Scores that are held at a time. 4 MiB stay in a core's cache: the way there and back of 1,500 targets of 12,101 items
takes 1.7 times as long with all scores at once. For a GPU 128 MiB, of which no time has been measured."""
_TARGETS_AT_A_TIME = 64
"""At least: products of fewer rows read the items more often than they compute with them."""
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
    """Return the cross-entropy `[P]` of targets `[P]` among all items; row 0 of `items` `[M + 1, D]` is none.

    With a `teacher`, and the places `[P]` of the targets among its own, Kullback and Leibler's divergence of its
    probabilities is added, times `distillation`. Scores are worked out again on the way back, and never all are held.
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
    """Works scores out in parts, there and back.

    Of the loss -log p_t + d * sum_k q_k (log q_k - log p_k) the gradient by score k is (1 + d) p_k - [k = t] - d q_k,
    since the q of a teacher sum to one.
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
        losses, normalizers = encoded.new_empty(len(encoded)), encoded.new_empty(len(encoded))
        for part, scores in _scores(encoded, items):
            normalizers[part] = normalizer = torch.logsumexp(scores, dim=1)
            losses[part] = normalizer - scores.gather(1, targets[part].unsqueeze(1) - 1).squeeze(1)
            if teacher is not None:
                of_teacher = teacher[0](teacher[1][part])
                lost = of_teacher - scores.sub_(normalizer.unsqueeze(1))
                losses[part] += distillation * (of_teacher.exp() * lost).sum(1)
        ctx.save_for_backward(encoded, items, targets, normalizers)
        ctx.teacher, ctx.distillation = teacher, distillation
        return losses

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]: torch's decorator takes the names away
        ctx: Any, *of_losses: Tensor
    ) -> tuple[Tensor, Tensor, None, None, None]:
        encoded, items, targets, normalizers = ctx.saved_tensors
        (of_loss,) = of_losses
        of_encoded, of_items = torch.empty_like(encoded), torch.zeros_like(items)
        for part, scores in _scores(encoded, items):
            of_scores = scores.sub_(normalizers[part].unsqueeze(1)).exp_()
            if ctx.teacher is not None:
                of_teacher, places = ctx.teacher
                of_scores.mul_(1.0 + ctx.distillation)
                of_scores.sub_(of_teacher(places[part]).exp(), alpha=ctx.distillation)
            of_scores.scatter_add_(1, targets[part].unsqueeze(1) - 1, of_scores.new_full((len(of_scores), 1), -1.0))
            of_scores.mul_(of_loss[part].unsqueeze(1))
            torch.mm(of_scores, items[1:], out=of_encoded[part])
            of_items[1:].addmm_(of_scores.T, encoded[part])
        return of_encoded, of_items, None, None, None


def _scores(encoded: Tensor, items: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield the scores `[Q, M]` of some targets after the other, in one place in memory."""
    limit = _SCORES_AT_A_TIME["cpu" if encoded.is_cpu else "cuda"]
    size = min(max(_TARGETS_AT_A_TIME, limit // len(items)), max(1, len(encoded)))
    place = encoded.new_empty(size, len(items) - 1)
    for start in range(0, len(encoded), size):
        part = slice(start, min(start + size, len(encoded)))
        yield part, torch.mm(encoded[part], items[1:].T, out=place[: part.stop - start])
