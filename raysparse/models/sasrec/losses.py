"""Losses of next items: one per target, of its encoding and of rows of the table."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from raysparse.models.sasrec.full_softmax import Teacher


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


def bce(encoded: Tensor, positives: Tensor, targets: Tensor, negatives: Tensor, negative_ids: Tensor) -> Tensor:
    """Return the binary cross-entropy `[P]` of targets and negatives `[P, K, D]` of their own, by ids `[P, K]`.

    A negative that is the target itself does not count.
    """
    others = softplus((negatives @ encoded.unsqueeze(2)).squeeze(2))
    others = others.masked_fill(targets.unsqueeze(1) == negative_ids, 0.0).sum(1)
    return others - logsigmoid((encoded * positives).sum(1))
