"""Losses of next items: one per target, of its encoding and of rows of the table."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus
from torch.utils.checkpoint import checkpoint

_SCORES_AT_A_TIME = 2**25
"""Scores of a full softmax that are held at a time, 128 MiB; more are computed again on the way back. For 1,340 targets
of 100,000 items the way there and back takes 0.5 GiB, by measurement, and all at once 1.5."""

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

    With a `teacher`, and the places `[P]` of the targets among its own, the divergence from it is added.
    """
    size = max(1, _SCORES_AT_A_TIME // len(items))
    if len(encoded) <= size:
        return _full_softmax(encoded, items, targets, teacher, distillation)
    parts: list[Tensor] = []
    for start in range(0, len(encoded), size):
        part = slice(start, start + size)
        of_part = None if teacher is None else (teacher[0], teacher[1][part])
        arguments = (encoded[part], items, targets[part], of_part, distillation)
        parts.append(cast(Tensor, checkpoint(_full_softmax, *arguments, use_reentrant=False)))
    return torch.cat(parts)


def _full_softmax(
    encoded: Tensor, items: Tensor, targets: Tensor, teacher: tuple[Teacher, Tensor] | None, distillation: float
) -> Tensor:
    logits = encoded @ items[1:].T
    losses = torch.nn.functional.cross_entropy(logits, targets - 1, reduction="none")
    if teacher is None:
        return losses
    of_targets, places = teacher
    return losses + distillation * divergence(logits, of_targets(places))


def full_softmax_teacher(encoded: Tensor, items: Tensor) -> Teacher:
    """Return what encodings `[P, W]` make of all items `[M + 1, W]`: worked out here for all that learn from it.

    Where these are more scores than are held at a time, they are worked out whenever they are asked for.
    """
    encoded, items = encoded.detach(), items.detach()
    if len(encoded) * len(items) > _SCORES_AT_A_TIME:
        return lambda places: torch.log_softmax(encoded[places] @ items[1:].T, dim=1)
    kept = torch.log_softmax(encoded @ items[1:].T, dim=1)
    return lambda places: kept[places]


def sampled_softmax_teacher(logits: Tensor) -> Teacher:
    """Return what a network makes of its targets and the negatives, given its `sampled_logits` `[P, 1 + N]`."""
    kept = torch.log_softmax(logits.detach(), dim=1)
    return lambda places: kept[places]


def sampled_softmax(logits: Tensor) -> Tensor:
    """Return the cross-entropy `[P]` of each target among itself and the negatives: `sampled_logits` `[P, 1 + N]`."""
    return torch.logsumexp(logits, dim=1) - logits[:, 0]


def sampled_logits(
    encoded: Tensor,
    positives: Tensor,
    targets: Tensor,
    negatives: Tensor,
    negative_ids: Tensor,
    log_expected: Tensor | None,
) -> Tensor:
    """Return the logits `[P, 1 + N]` of each target, which comes first, and of the negatives that all share.

    `encoded`, `positives` `[P, D]`, `negatives` `[N, D]`; `log_expected` `[N]` are the logs of how often the negatives
    are expected among the draws, which their logits lose, so that their sum is that of all other items in the mean
    (importance sampling: Bengio and Senecal 2008). A target is there whatever is drawn, and loses nothing
    (arXiv 2507.09331). A negative that is a target's own item does not count for it.
    """
    own = (encoded * positives).sum(1)
    others = encoded @ negatives.T
    if log_expected is not None:
        others = others - log_expected
    others = others.masked_fill(targets.unsqueeze(1) == negative_ids, -torch.inf)
    return torch.cat([own.unsqueeze(1), others], dim=1)


def divergence(logits: Tensor, of_teacher: Tensor) -> Tensor:
    """Return Kullback and Leibler's divergence `[P]` of a teacher's probabilities from those of `logits` `[P, K]`.

    `of_teacher` are the natural logs of its probabilities, `[P, K]`. What has none for it does not count.
    """
    lost = of_teacher - torch.log_softmax(logits, dim=1)
    return (of_teacher.exp() * lost.masked_fill(of_teacher == -torch.inf, 0.0)).sum(1)


def gbce(
    encoded: Tensor,
    positives: Tensor,
    targets: Tensor,
    negatives: Tensor,
    negative_ids: Tensor,
    num_items: int,
    t: float,
) -> Tensor:
    """Return the generalised binary cross-entropy `[P]` (gSASRec, arXiv 2308.07192).

    The positive's probability is taken to the power of `beta = a * (t * (1 - 1/a) + 1/a)`, where `a` is the share of
    the other items that is drawn. A negative that is a target's own item does not count for it.
    """
    alpha = len(negative_ids) / (num_items - 1)
    beta = alpha * (t * (1.0 - 1.0 / alpha) + 1.0 / alpha)
    others = softplus(encoded @ negatives.T).masked_fill(targets.unsqueeze(1) == negative_ids, 0.0)
    return others.sum(1) - beta * logsigmoid((encoded * positives).sum(1))


def bce(encoded: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """Return the binary cross-entropy `[P]` of targets and negatives `[P, K, D]` of their own."""
    others = softplus((negatives @ encoded.unsqueeze(2)).squeeze(2)).sum(1)
    return others - logsigmoid((encoded * positives).sum(1))
