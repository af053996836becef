"""Compaction: a head without its pruned groups, really smaller, of the same class, with the same outputs."""

import copy
import dataclasses

import torch
from torch import Tensor, nn

from raysparse.models.groups import groups_of, links_of
from raysparse.models.sasrec.attention import Projections
from raysparse.sparsity.layout import Masks


def compact(head: nn.Module, masks: Masks) -> nn.Module:
    """Return a copy of a head that holds the kept groups only; it computes what the masked head did.

    Exact, because the mask stands behind the activation: a pruned neuron gives nothing. Where a place of `masks` is
    missing, all its groups stay.
    """
    kept = kept_indices(head, masks)
    small = copy.deepcopy(head)
    places = groups_of(small)
    links = dict(links_of(small))
    for name, place in places.items():
        place.set_mask(None)
        place.observer = None
        if name not in masks:
            continue
        link = links[name]
        columns = _columns(masks[name], place.block)
        if link.producer is None:
            place.picked = columns if place.picked is None else place.picked[columns]
        place.num_groups = len(columns) // place.block
        if link.first_column:
            before = _kept_columns(head, masks, link.consumer)[: link.first_column]
            links[name] = dataclasses.replace(link, first_column=int(before.sum()))
    small.links = links  # pyright: ignore[reportArgumentType]
    for name, module in small.named_modules():
        if isinstance(module, nn.Linear | Projections):
            module.weight = nn.Parameter(compact_tensor(module.weight.detach(), kept[f"{name}.weight"]))
            if module.bias is not None:
                module.bias = nn.Parameter(compact_tensor(module.bias.detach(), kept[f"{name}.bias"]))
        if isinstance(module, nn.Linear):
            module.out_features, module.in_features = module.weight.shape
    return small


Kept = tuple[Tensor | None, ...]
"""Per dimension of a parameter what stays; None: all of it."""


def kept_indices(head: nn.Module, masks: Masks) -> dict[str, Kept]:
    """Per parameter of a head what stays of it."""
    kept: dict[str, Kept] = {}
    for name, module in head.named_modules():
        if not isinstance(module, nn.Linear | Projections):
            continue
        rows, columns = _kept_rows(head, masks, name), _kept_columns(head, masks, name)
        row_index = None if rows is None else rows.nonzero().squeeze(1)
        column_index = None if columns.all() else columns.nonzero().squeeze(1)
        # Projections are stacked: their rows are the second dimension.
        stacked: Kept = (None,) * (module.weight.dim() - 2)
        kept[f"{name}.weight"] = (*stacked, row_index, column_index)
        if module.bias is not None:
            kept[f"{name}.bias"] = (*stacked, row_index)
    return kept


def compact_tensor(tensor: Tensor, kept: Kept) -> Tensor:
    """Pick what stays of a tensor shaped like a parameter, such as a moment of its optimizer."""
    for dimension, index in enumerate(kept):
        if index is not None:
            tensor = tensor.index_select(dimension, index.to(tensor.device))
    return tensor.clone()


def _kept_rows(head: nn.Module, masks: Masks, name: str) -> Tensor | None:
    for place, link in links_of(head).items():
        if link.producer == name and place in masks:
            return masks[place].bool().repeat_interleave(groups_of(head)[place].block)
    return None


def _kept_columns(head: nn.Module, masks: Masks, name: str) -> Tensor:
    layer = head.get_submodule(name)
    assert isinstance(layer, nn.Linear | Projections)
    kept = torch.ones(layer.weight.shape[-1], dtype=torch.bool)
    places = groups_of(head)
    for place, link in links_of(head).items():
        if link.consumer == name and place in masks:
            mask = masks[place].bool().repeat_interleave(places[place].block)
            kept[link.first_column : link.first_column + len(mask)] = mask
    return kept


def _columns(mask: Tensor, block: int) -> Tensor:
    return mask.bool().repeat_interleave(block).nonzero().squeeze(1)
