"""Projection onto a budget: which groups to keep so that a head costs what it may."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from raysparse.sparsity.criteria import Scores
from raysparse.sparsity.layout import Layout, Masks, Widths, open_masks, widths_of

WidthRule = Callable[[str, int, float], float]
"""Width of a place from its name, its size and a ratio."""


def project_greedily(scores: Scores, layout: Layout, masks: Masks, macs: int) -> Masks:
    """Leave groups out, least score per multiply-add first, until the head takes at most `macs`; all places together.

    So one number becomes a width for every layer. Widths are cut to what the layout allows; what that and the last
    removal have saved too much is given back to the best groups that fit. Groups that `masks` leave out stay out.
    """
    kept = drop_worst(scores, layout, masks, lambda widths: layout.macs(widths) <= macs)
    allowed = {place: layout.at_most(place, width) for place, width in widths_of(kept).items()}
    return refill(scores, layout, project_within_places(scores, kept, allowed), masks, macs)


def project_both_ways(scores: Scores, layout: Layout, masks: Masks, macs: int) -> Masks:
    """Like `project_greedily`, but groups that `masks` leave out are taken in as well where they fit."""
    kept = project_greedily(scores, layout, masks, macs)
    return refill(scores, layout, kept, open_masks(layout), macs)


def drop_worst(scores: Scores, layout: Layout, masks: Masks, enough: Callable[[Widths], bool]) -> Masks:
    """Leave groups out, least score per multiply-add first, until `enough` holds for the widths, or all are at floors.

    What a group costs follows its neighbours' current widths.
    """
    queues = {place: _worst_first(scores[place], mask) for place, mask in masks.items()}
    values = {place: scores[place].tolist() for place in masks}
    taken = dict.fromkeys(masks, 0)
    widths = widths_of(masks)
    while not enough(widths):
        saved = layout.macs_per_group(widths)
        above_floor = [place for place in masks if widths[place] > layout.floors[place]]
        if not above_floor:
            break
        worst = min(above_floor, key=lambda place: values[place][queues[place][taken[place]]] / max(saved[place], 1))
        taken[worst] += 1
        widths[worst] -= 1
    return {place: _without(mask, queues[place][: taken[place]]) for place, mask in masks.items()}


def refill(scores: Scores, layout: Layout, masks: Masks, candidates: Masks, macs: int) -> Masks:
    """Take groups of `candidates` in while any fit into `macs`, the highest score per multiply-add first.

    A place takes as many at once as make the next width that the layout allows.
    """
    filled = {place: mask.clone() for place, mask in masks.items()}
    queues = {place: _worst_first(scores[place], candidates[place] & ~mask) for place, mask in masks.items()}
    values = {place: scores[place].tolist() for place in masks}
    widths = widths_of(masks)
    room = macs - layout.macs(widths)
    while True:
        of_one = layout.macs_per_group(widths)
        counts = {place: layout.above(place, widths[place]) - widths[place] for place in queues}
        added = {place: count * of_one[place] for place, count in counts.items()}
        worths = {
            place: sum(values[place][group] for group in queues[place][-count:]) / max(added[place], 1)
            for place, count in counts.items()
            if 0 < count <= len(queues[place]) and added[place] <= room
        }
        if not worths:
            return filled
        best = max(worths, key=worths.__getitem__)
        for _ in range(counts[best]):
            filled[best][queues[best].pop()] = True
        widths[best] += counts[best]
        room -= added[best]


def project_within_places(scores: Scores, masks: Masks, widths: Widths) -> Masks:
    """Keep the best groups of each place, as many as `widths` says."""
    kept: Masks = {}
    for place, mask in masks.items():
        queue = _worst_first(scores[place], mask)
        kept[place] = _without(mask, queue[: max(0, len(queue) - widths[place])])
    return kept


def uniform_widths(layout: Layout, macs: int, prune_inputs: bool = True) -> dict[str, int]:
    """Widths of one ratio for all places, never below the floors, the largest that `macs` allows."""
    inputs = _input_places(layout)
    return _largest(
        layout, macs, lambda place, size, ratio: size if place in inputs and not prune_inputs else ratio * size
    )


def erk_widths(layout: Layout, macs: int) -> dict[str, int]:
    """Widths by the Erdos-Renyi rule (Mocanu et al. 2018, arXiv 1707.04780; ERK in RigL, arXiv 1911.11134).

    A matrix's density is proportional to (rows + columns) / (rows * columns); a place keeps the square root of
    what its matrices keep, since a neuron takes part in both sides.
    """
    densities: dict[str, list[float]] = {place: [] for place in layout.sizes}
    for matrix in layout.matrices:
        rows, columns = matrix.rows.size(layout.sizes), matrix.columns.size(layout.sizes)
        for side in (matrix.rows, matrix.columns):
            if side.place is not None:
                densities[side.place].append((rows + columns) / (rows * columns))
    rule = {place: (sum(found) / len(found)) ** 0.5 for place, found in densities.items()}
    return _largest(layout, macs, lambda place, size, ratio: ratio * rule[place] * size / max(rule.values()))


def widths_by_hand(layout: Layout, macs: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Widths in the ratios of `shares` to their places' sizes, 1 where a place has none, the largest that fit."""
    return _largest(layout, macs, lambda place, size, ratio: ratio * shares.get(place, 1.0) * size)


def _largest(layout: Layout, macs: int, width: WidthRule) -> dict[str, int]:
    """Widths at the largest ratio that keeps the head within `macs`; the rule's widths are cut to floor and size."""

    def widths(ratio: float) -> dict[str, int]:
        return {place: layout.at_most(place, width(place, size, ratio)) for place, size in layout.sizes.items()}

    low, high = 0.0, 1.0
    while layout.macs(widths(high)) < min(macs, layout.dense_macs) and high < 1e6:
        low, high = high, high * 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if layout.macs(widths(middle)) <= macs else (low, middle)
    return widths(low)


def _input_places(layout: Layout) -> set[str]:
    made = {matrix.rows.place for matrix in layout.matrices}
    return {place for place in layout.sizes if place not in made}


def _worst_first(scores: Tensor, mask: Tensor) -> list[int]:
    kept = mask.nonzero().squeeze(1)
    return kept[scores[kept].argsort(stable=True)].tolist()


def _without(mask: Tensor, removed: list[int]) -> Tensor:
    kept = mask.clone()
    kept[torch.tensor(removed, dtype=torch.long)] = False
    return kept
