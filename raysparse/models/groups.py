"""Groups: what structured pruning removes whole, and where in a head they stand."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Groups(nn.Module):
    """A place whose columns can be left out in groups: `[B, num_groups * block]` in, the kept ones out.

    It is in one of three states. Open, it passes everything on. Masked, it multiplies each group by `mask`, a
    parameter whose gradient is the first-order effect of the group on the loss. Compacted, the groups left are
    the only ones that arrive; where nothing produces them (inputs), it picks them itself.
    """

    def __init__(self, num_groups: int, block: int = 1) -> None:
        super().__init__()
        self.num_groups = num_groups
        self.block = block
        self.mask: nn.Parameter | None = None
        self.observer: Callable[[Tensor], None] | None = None
        """Is shown the columns of every batch that is trained on, before they are masked."""
        self.picked: Tensor | None
        self.register_buffer("picked", None, persistent=False)

    def forward(self, columns: Tensor) -> Tensor:
        """Return the columns of the groups that are kept."""
        if self.picked is not None:
            columns = columns.index_select(1, self.picked)
        if self.observer is not None and torch.is_grad_enabled():
            self.observer(columns.detach())
        if self.mask is not None:
            columns = columns * self._mask_of_columns(self.mask)
        return columns

    def _mask_of_columns(self, mask: Tensor) -> Tensor:
        return mask if self.block == 1 else mask.repeat_interleave(self.block)

    def set_mask(self, mask: Tensor | None) -> None:
        """Mask the groups by `[num_groups]` of 0 and 1, in place where they are masked already; None: open."""
        if mask is None:
            self.mask = None
        elif self.mask is None:
            self.mask = nn.Parameter(mask.clone())
        else:
            with torch.no_grad():
                self.mask.copy_(mask)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes over: nobody observes it."""
        return {**self.__dict__, "observer": None}

    def extra_repr(self) -> str:
        """Sizes and state, for printing."""
        state = "masked" if self.mask is not None else "picked" if self.picked is not None else "open"
        return f"{self.num_groups} x {self.block}, {state}"


@dataclass(frozen=True)
class Link:
    """What goes with the groups of a place, by module names within the head."""

    producer: str | None
    """The layer whose outputs the columns are, of which a group is a block; None: they are the head's input."""
    consumer: str
    """The `nn.Linear` that reads the columns."""
    first_column: int = 0
    """Where in the consumer's input they begin."""


class PrunableHead(Protocol):
    """A head that says where its groups are: place by place, the name of its `Groups` and its link."""

    links: dict[str, Link]


def groups_of(head: nn.Module) -> dict[str, Groups]:
    """The places of a head by name, in the order in which it declares them."""
    links: dict[str, Link] = head.links  # pyright: ignore[reportAssignmentType]
    found: dict[str, Groups] = {}
    for name in links:
        place = head.get_submodule(name)
        assert isinstance(place, Groups)
        found[name] = place
    return found


def links_of(head: nn.Module) -> dict[str, Link]:
    """The links of a head by the name of the place."""
    return head.links  # pyright: ignore[reportReturnType]


@torch.no_grad()
def scale_outgoing(head: nn.Module, place: str, factors: Tensor) -> None:
    """Multiply the weights that read each group of a place by `factors` `[num_groups]`, in place."""
    link, block = links_of(head)[place], groups_of(head)[place].block
    consumer = head.get_submodule(link.consumer)
    assert isinstance(consumer, nn.Linear)
    columns = consumer.weight[:, link.first_column : link.first_column + block * len(factors)]
    columns.mul_(factors.repeat_interleave(block).to(columns))
