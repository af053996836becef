"""How much a group matters: first-order Taylor, magnitude, movement, and their mix."""

import torch
from torch import Tensor, nn

from raysparse.models.groups import groups_of, links_of
from raysparse.models.sasrec.attention import Projections, produced_rows

Scores = dict[str, Tensor]
"""Per place a score `[num_groups]`, higher where a group matters more; on the CPU, as masks are."""


def mask_gradients(head: nn.Module) -> Scores:
    """The gradient of the loss by each group's mask, after a backward pass of a masked head.

    At a mask of 1 it is the first-order Taylor estimate of what leaving the group out does to the loss
    (Molchanov et al. 2017, arXiv 1611.06440, equation 8), with its sign. At a mask of 0 it is that of taking the
    group in again with the weights that it has kept.
    """
    found: Scores = {}
    for name, place in groups_of(head).items():
        assert place.mask is not None
        gradient = place.mask.grad
        found[name] = torch.zeros_like(place.mask.detach()) if gradient is None else gradient.detach()
    return _on_cpu(found)


def magnitude(head: nn.Module) -> Scores:
    """Root of the product of the norms of a group's incoming and outgoing weights; of an input's, the outgoing alone.

    The product is what a neuron's scale cannot be moved out of: halving the way in and doubling the way out changes
    neither the function nor the score.
    """
    found = {name: energy.sqrt() for name, energy in outgoing_energies(head).items()}
    incoming: Scores = {}
    for name, link in links_of(head).items():
        if link.producer is not None:
            producer, block = head.get_submodule(link.producer), groups_of(head)[name].block
            assert isinstance(producer, nn.Linear | Projections)
            of_columns = produced_rows(producer).detach().square().flatten(1).sum(1)
            incoming[name] = of_columns.view(-1, block).sum(1).sqrt()
    for name, norm in _on_cpu(incoming).items():
        found[name] = (found[name] * norm).sqrt()
    return found


def outgoing_energies(head: nn.Module) -> Scores:
    """Sum of the squares of the weights with which a group is read."""
    found: Scores = {}
    places = groups_of(head)
    for name, link in links_of(head).items():
        place = places[name]
        consumer = head.get_submodule(link.consumer)
        assert isinstance(consumer, nn.Linear)
        columns = consumer.weight.detach()[:, link.first_column : link.first_column + place.num_groups * place.block]
        found[name] = columns.square().sum(0).view(place.num_groups, place.block).sum(1)
    return _on_cpu(found)


def mix(first: Scores, second: Scores, share: float) -> Scores:
    """`first ** share * second ** (1 - share)`, each over its mean over all groups of all places."""
    return {
        place: (first[place] / _mean(first)) ** share * (second[place] / _mean(second)) ** (1 - share)
        for place in first
    }


def _mean(scores: Scores) -> float:
    total = torch.cat([score.flatten() for score in scores.values()]).mean().item()
    return total if total > 0 else 1.0


def _on_cpu(scores: Scores) -> Scores:
    """Copies on the CPU; one transfer, since each would wait for the device."""
    if not scores:
        return {}
    together = torch.cat(list(scores.values())).cpu()
    parts = together.split([len(score) for score in scores.values()])
    return {name: part.clone() for name, part in zip(scores, parts, strict=True)}
