"""Compensation: what a pruned group told its readers is taken over by the groups that stay, by least squares.

A column that is left out is predicted linearly from the columns that stay, and its weights are added to theirs
accordingly (the reconstruction of He, Zhang and Sun 2017, arXiv 1707.06168, section 3.1, in closed form). What a layer
gives to the next one so changes as little as a linear map allows, before any training.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from raysparse.models.groups import groups_of, links_of
from raysparse.sparsity.layout import Masks


@dataclass(frozen=True)
class Training:
    """A masked head that is being trained, as far as a pruner looks beyond its gradients."""

    head: Callable[[], nn.Module]
    """The head as it is now: while it is pruned, it is made again without the groups that are left out."""
    weights: Callable[[Tensor], Tensor]
    """The weights `[B]` of the rows of columns `[B, ...]` that this rank has seen; 0 for padding."""
    add_up: Callable[[Tensor], None]
    """Replaces a tensor by its sum over all ranks, in place; all ranks together."""
    rows: int
    """Rows of a step, over all ranks."""


RIDGE = 1e-3
"""Added to the correlations' diagonal, against columns that say the same."""
ROWS_PER_COLUMN = 20
"""Rows that moments remember for each of their columns, where there are as many. Those of every row would cost a fifth
of what a child of 512-256-64 costs while it is pruned, at 4096 rows a step."""


def steps_between(rows: float, num_columns: int) -> int:
    """Return of how many steps one shows its columns, where `rows` are remembered if all do."""
    return max(1, int(rows / (ROWS_PER_COLUMN * num_columns)))


class ColumnStatistics:
    """Running means and second moments of a place's columns, before they are masked; the same on every rank."""

    def __init__(self, num_columns: int, decay: float) -> None:
        """Forget by `decay` per batch that is added."""
        # With the constant 1 as a last column: its row holds the means, its corner the weight of what was seen.
        self.moments = torch.zeros(num_columns + 1, num_columns + 1)
        self._decay = decay

    def add(self, columns: Tensor, training: Training) -> None:
        """Add a batch `[B, columns]`; all ranks together. An exchange per batch keeps every rank's copy exact."""
        weighted = torch.cat([columns, columns.new_ones(len(columns), 1)], dim=1) * training.weights(columns).unsqueeze(
            1
        )
        batch = weighted.T @ weighted
        training.add_up(batch)
        if batch[-1, -1] == 0:
            return  # no rank has a row
        self.moments.lerp_((batch / batch[-1, -1]).cpu(), 1.0 - self._decay)

    def narrow(self, kept: Tensor) -> None:
        """Forget the columns that `kept` `[columns]` leaves out."""
        kept = torch.nn.functional.pad(kept, (0, 1), value=True)
        self.moments = self.moments[kept][:, kept].clone()

    def covariance(self) -> tuple[Tensor, Tensor]:
        """Means `[columns]` and covariances `[columns, columns]`."""
        moments = self.moments / self.moments[-1, -1].clamp(min=1e-12)
        mean = moments[-1, :-1]
        return mean, moments[:-1, :-1] - torch.outer(mean, mean)


def observe(
    training: Training, statistics: dict[str, ColumnStatistics], is_due: Callable[[], bool] = lambda: True
) -> None:
    """Have a head's places show their columns to the statistics, in the steps that are due; with none, to nobody."""
    for name, place in groups_of(training.head()).items():
        noted = statistics.get(name)
        place.observer = None if noted is None else partial(_add_if_due, noted, training, is_due)


def _add_if_due(noted: ColumnStatistics, training: Training, is_due: Callable[[], bool], columns: Tensor) -> None:
    if is_due():
        noted.add(columns, training)


def compensate(head: nn.Module, before: Masks, after: Masks, statistics: dict[str, ColumnStatistics]) -> None:
    """Add the weights of the groups that `after` leaves out, and `before` kept, to those that stay. Every rank."""
    places = groups_of(head)
    with torch.no_grad():
        for name, link in links_of(head).items():
            removed = (before[name] & ~after[name]).repeat_interleave(places[name].block).nonzero().squeeze(1)
            kept = after[name].repeat_interleave(places[name].block).nonzero().squeeze(1)
            if len(removed) == 0 or len(kept) == 0:
                continue
            consumer = head.get_submodule(link.consumer)
            assert isinstance(consumer, nn.Linear)
            share, constant = _regression(*statistics[name].covariance(), kept, removed)
            lost = consumer.weight[:, link.first_column + removed]
            consumer.weight[:, link.first_column + kept] += lost @ share.to(lost.device)
            if consumer.bias is not None:
                consumer.bias.add_(lost @ constant.to(lost.device))


def _regression(mean: Tensor, covariance: Tensor, kept: Tensor, removed: Tensor) -> tuple[Tensor, Tensor]:
    """What `[removed, kept]` and `[removed]` predict the removed columns by: kept columns and a constant."""
    deviation = covariance.diagonal().clamp(min=0.0).sqrt().clamp(min=1e-6)
    correlation = covariance / torch.outer(deviation, deviation)
    system = correlation[kept][:, kept].clone()
    system.diagonal().add_(RIDGE)
    solved = torch.linalg.solve(system.double(), correlation[kept][:, removed].double()).T.to(mean.dtype)
    share = solved * deviation[removed].unsqueeze(1) / deviation[kept].unsqueeze(0)
    return share, mean[removed] - share @ mean[kept]
