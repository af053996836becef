"""Compaction: a head without its pruned groups, really smaller, of the same class, with the same outputs."""

import copy
import dataclasses

import torch
from torch import Tensor, nn

from raysparse.models.groups import groups_of, links_of
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
        if isinstance(module, nn.Linear):
            rows, columns = kept[f"{name}.weight"]
            module.weight = nn.Parameter(_pick(module.weight.detach(), rows, columns))
            if module.bias is not None:
                module.bias = nn.Parameter(_pick(module.bias.detach(), rows, None))
            module.out_features, module.in_features = module.weight.shape
    return small


def kept_indices(head: nn.Module, masks: Masks) -> dict[str, tuple[Tensor | None, Tensor | None]]:
    """Per parameter of a head the rows and the columns that stay; None: all of them."""
    kept: dict[str, tuple[Tensor | None, Tensor | None]] = {}
    for name, module in head.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        rows = _kept_rows(head, masks, name)
        columns = _kept_columns(head, masks, name)
        row_index = None if rows is None else rows.nonzero().squeeze(1)
        kept[f"{name}.weight"] = (row_index, None if columns.all() else columns.nonzero().squeeze(1))
        if module.bias is not None:
            kept[f"{name}.bias"] = (row_index, None)
    return kept


def compact_tensor(tensor: Tensor, kept: tuple[Tensor | None, Tensor | None]) -> Tensor:
    """Pick the rows and columns of a tensor shaped like a parameter, such as a moment of its optimizer."""
    return _pick(tensor, *kept)


def _pick(tensor: Tensor, rows: Tensor | None, columns: Tensor | None) -> Tensor:
    if rows is not None:
        tensor = tensor[rows]
    if columns is not None:
        tensor = tensor[:, columns]
    return tensor.clone()


def _kept_rows(head: nn.Module, masks: Masks, name: str) -> Tensor | None:
    for place, link in links_of(head).items():
        if link.producer == name and place in masks:
            return masks[place].bool()
    return None


def _kept_columns(head: nn.Module, masks: Masks, name: str) -> Tensor:
    linear = head.get_submodule(name)
    assert isinstance(linear, nn.Linear)
    kept = torch.ones(linear.in_features, dtype=torch.bool)
    places = groups_of(head)
    for place, link in links_of(head).items():
        if link.consumer == name and place in masks:
            mask = masks[place].bool().repeat_interleave(places[place].block)
            kept[link.first_column : link.first_column + len(mask)] = mask
    return kept


def _columns(mask: Tensor, block: int) -> Tensor:
    return mask.bool().repeat_interleave(block).nonzero().squeeze(1)
