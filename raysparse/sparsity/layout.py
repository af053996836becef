"""What a head's groups cost: multiply-adds as a function of how many groups each place keeps."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import gcd

import torch
from torch import Tensor, nn

from raysparse.errors import ConfigError
from raysparse.models.groups import Groups, groups_of, links_of
from raysparse.models.sasrec.attention import CausalAttention, Projections, attention_macs, produced_rows
from raysparse.models.sasrec.encoder import SASRec

Masks = dict[str, Tensor]
"""Per place a boolean `[num_groups]`: which groups are kept."""

Widths = Mapping[str, int]
"""Per place how many groups are kept."""


@dataclass(frozen=True)
class Side:
    """Rows or columns of a matrix: some always there, the others in groups of `block` at a place."""

    fixed: int
    place: str | None = None
    block: int = 0

    def size(self, widths: Widths) -> int:
        """How many there are."""
        return self.fixed + (self.block * widths[self.place] if self.place is not None else 0)


@dataclass(frozen=True)
class Matrix:
    """A fully connected layer of a head."""

    rows: Side
    columns: Side
    times: int = 1
    """How often it is multiplied for one row."""

    def macs(self, widths: Widths) -> int:
        """Multiply-adds for one row."""
        return self.times * self.rows.size(widths) * self.columns.size(widths)


@dataclass(frozen=True)
class Layout:
    """The places of a head and the matrices between them."""

    sizes: Widths
    """Groups of each place in the dense head."""
    floors: Widths
    """Groups that each place keeps at least, so that no layer collapses."""
    matrices: tuple[Matrix, ...]
    other_macs: int
    """Multiply-adds for one row that no group changes: products of embeddings."""
    multiples: Widths = field(default_factory=dict)
    """Per place what its width is a multiple of, unless all is kept; 1 where a place is missing."""

    def macs(self, widths: Widths) -> int:
        """Multiply-adds of the head for one row."""
        return self.other_macs + sum(matrix.macs(widths) for matrix in self.matrices)

    def num_columns(self, place: str) -> int:
        """Columns of a place in the dense head."""
        return self.sizes[place] * max(one.columns.block for one in self.matrices if one.columns.place == place)

    @property
    def dense_macs(self) -> int:
        """Multiply-adds of the whole head."""
        return self.macs(self.sizes)

    @property
    def least_macs(self) -> int:
        """Multiply-adds with every place at its floor."""
        return self.macs(self.floors)

    def macs_per_group(self, widths: Widths) -> dict[str, int]:
        """What leaving one more group of a place out saves; it follows the neighbours' current widths."""
        saved = dict.fromkeys(self.sizes, 0)
        for matrix in self.matrices:
            rows, columns = matrix.rows.size(widths), matrix.columns.size(widths)
            if matrix.rows.place is not None:
                saved[matrix.rows.place] += matrix.times * matrix.rows.block * columns
            if matrix.columns.place is not None:
                saved[matrix.columns.place] += matrix.times * matrix.columns.block * rows
        return saved

    def at_most(self, place: str, width: float) -> int:
        """The largest width that a place may have up to `width`, or its floor."""
        if width >= self.sizes[place]:
            return self.sizes[place]
        multiple = self.multiples.get(place, 1)
        return max(self.floors[place], int(width) // multiple * multiple)

    def above(self, place: str, width: int) -> int:
        """The next larger width that a place may have, or its size."""
        multiple = self.multiples.get(place, 1)
        return min(self.sizes[place], (width // multiple + 1) * multiple)

    def budget_macs(self, budget: float, key: str = "budget") -> int:
        """Multiply-adds of a share of the dense head's; ConfigError, naming `key`, where the floors need more."""
        allowed = int(budget * self.dense_macs)
        if allowed < self.least_macs:
            raise ConfigError(
                f"{key}: found {budget:g}, which is {allowed:,} of the dense head's {self.dense_macs:,} multiply-adds; "
                f"with every layer at its floor the model takes {self.least_macs:,}, so that at least "
                f"{self.least_macs / self.dense_macs:.4f} is possible. Raise the budget or lower the floor"
            )
        return allowed


def layout_of(head: nn.Module, macs: int, least_groups: int, least_share: float, multiple_of: int = 1) -> Layout:
    """Read a dense head's layout. `macs` is what the whole head takes for one row, or one history.

    A place keeps `least_groups` or `least_share` of its groups, whichever is more, and of many groups as many as make
    a multiple of `multiple_of` columns.
    """
    places = groups_of(head)
    sizes = {name: place.num_groups for name, place in places.items()}
    multiples = {name: _multiple(place, multiple_of) for name, place in places.items()}
    floors = {
        name: min(size, _up(max(least_groups, round(least_share * size)), multiples[name]))
        for name, size in sizes.items()
    }
    times = sequence_length(head)
    matrices: list[Matrix] = []
    for name, module in head.named_modules():
        if isinstance(module, nn.Linear | Projections):
            matrices.append(_matrix(head, name, module, times))
        elif isinstance(module, CausalAttention) and f"{name}.heads" in places:
            # What attention multiplies within the history, as much for each channel of a head.
            head_dim = module.heads.block
            of_channel = attention_macs(module.kind, times, 1, head_dim)
            matrices.append(Matrix(Side(0, f"{name}.heads", head_dim), Side(of_channel)))
    layout = Layout(sizes, floors, tuple(matrices), 0, multiples)
    return replace(layout, other_macs=macs - layout.dense_macs)


def _multiple(place: Groups, multiple_of: int) -> int:
    """Groups that make a multiple of so many columns; 1 in a place that is too narrow for it."""
    multiple = multiple_of // gcd(multiple_of, place.block)
    return multiple if place.num_groups >= 4 * multiple else 1


def _up(width: int, multiple: int) -> int:
    return -(-width // multiple) * multiple


def sequence_length(head: nn.Module) -> int:
    """How often a head's layers run for what its multiply-adds are counted for: a row, or the longest history."""
    return head.config.max_length if isinstance(head, SASRec) else 1


def _matrix(head: nn.Module, name: str, module: nn.Linear | Projections, times: int) -> Matrix:
    num_rows, num_columns = produced_rows(module).shape[0], module.weight.shape[-1]
    # Queries, keys and values: three rows for each channel.
    stacked = produced_rows(module)[0].numel() // num_columns
    rows, columns = Side(stacked * num_rows), Side(num_columns)
    for place, link in links_of(head).items():
        groups = groups_of(head)[place]
        if link.producer == name:
            rows = Side(0, place, stacked * groups.block)
        if link.consumer == name:
            columns = Side(num_columns - groups.block * groups.num_groups, place, groups.block)
    return Matrix(rows, columns, times)


def widths_of(masks: Masks) -> dict[str, int]:
    """How many groups each place keeps."""
    return {place: int(mask.sum()) for place, mask in masks.items()}


def open_masks(layout: Layout) -> Masks:
    """Masks that keep everything."""
    return {place: torch.ones(size, dtype=torch.bool) for place, size in layout.sizes.items()}


def within(kept: Masks, masks: Masks) -> Masks:
    """Masks of all groups, from masks of those that were kept so far."""
    return {place: mask.masked_scatter(mask, masks[place]) for place, mask in kept.items()}
