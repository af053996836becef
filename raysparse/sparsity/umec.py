"""Pruning in UMEC's form, as a comparison: the number of groups to remove is learned per layer, and they are shrunk."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from raysparse.config import Config
from raysparse.models.groups import scale_outgoing
from raysparse.sparsity.criteria import Scores, outgoing_energies
from raysparse.sparsity.layout import Layout, Masks, Widths, open_masks
from raysparse.sparsity.projection import project_both_ways, project_within_places
from raysparse.sparsity.pruner import write_masks
from raysparse.sparsity.schedule import cubic_budget, masks_stand


class UmecConfig(Config):
    """Learns how many groups each layer loses, while the weakest ones shrink (UMEC, Shen et al., ICLR 2021).

    All rates are those of the whole pruning, so that it may have any number of steps.
    """

    kind: Literal["umec"] = "umec"
    removal_rate: float = Field(default=6.7, gt=0.0)
    """Groups of a layer that are removed at a gradient of 1, its largest, in units of an average layer."""
    energy_price_rate: float = Field(default=3.3, gt=0.0)
    """How far a layer's price rises where the groups to be removed hold all of its energy all the time."""
    cost_price_rate: float = Field(default=67.0, gt=0.0)
    """How far the budget's price rises where the head takes one dense head more than it may all the time."""
    shrink_rate: float = Field(default=2.7, gt=0.0)
    """How fast groups to be removed shrink: at a price of y by a factor of exp(-2 * shrink_rate * y)."""


class UmecPruner:
    """Descent on the loss, by the optimizer, and on the numbers of groups removed; ascent on prices. Every rank.

    With s of a place's groups to be removed, the sum of the s smallest energies has a price y of its own and the
    head's multiply-adds have the price z: min over W, s and max over y, z >= 0 of
    `loss + sum y * smallest(s) + z * (macs - budget)`. An energy is the sum of the squares of a group's outgoing
    weights, counted in shares of its place's, since a ReLU's scale may move from one layer to the next. The weights
    of the groups to be removed shrink by the proximal step. The budget falls as in the other pruners (UMEC has the
    last one from the start): at once, price and numbers overshoot, and groups that stay are shrunk. Nothing is
    masked until, at the end of the pruning, the masks are projected onto the budget.
    """

    def __init__(self, config: UmecConfig, layout: Layout, budget: float, num_steps: int, seed: int) -> None:
        """Prune within `num_steps` steps; nothing is drawn, so that `seed` changes nothing."""
        self.layout = layout
        self.macs = layout.budget_macs(budget)
        self._removal_rate = config.removal_rate / num_steps
        self._energy_price_rate = config.energy_price_rate / num_steps
        self._cost_price_rate = config.cost_price_rate / num_steps
        self._shrink_rate = config.shrink_rate / num_steps
        self._unit = sum(layout.sizes.values()) / len(layout.sizes)
        self._removed = {place: torch.zeros(1) for place in layout.sizes}
        self._energy_price = {place: torch.zeros(1) for place in layout.sizes}
        self._cost_price = torch.zeros(1)
        self._projected = torch.zeros(1)

    @property
    def raw_share(self) -> float:
        """Share of the dense head's multiply-adds that the learned widths ask for, before any projection."""
        return self.layout.macs(self._widths()) / self.layout.dense_macs

    def step(self, head: nn.Module, progress: float) -> bool:
        """Shrink what is to be removed, move numbers and prices; project when it is time, then leave all alone."""
        if self._projected.item():
            return False
        self._shrink(head)
        shares = _shares_of_places(outgoing_energies(head))
        self._move_removed(shares)
        self._raise_prices(shares, cubic_budget(self.macs / self.layout.dense_macs, progress))
        if not masks_stand(progress):
            return False
        masks = project_within_places(shares, open_masks(self.layout), self._widths())
        write_masks(head, project_both_ways(self._per_mean(shares), self.layout, masks, self.macs))
        self._projected.fill_(1.0)
        return True

    def narrow(self, masks: Masks) -> None:
        """Nothing: by then the masks are projected, and nothing is chosen any more."""

    def tensors(self) -> dict[str, Tensor]:
        """Numbers of groups to remove, and the prices."""
        removed = {f"removed/{place}": number for place, number in self._removed.items()}
        prices = {f"energy_price/{place}": price for place, price in self._energy_price.items()}
        return {**removed, **prices, "cost_price": self._cost_price, "projected": self._projected}

    def _widths(self) -> dict[str, int]:
        return {place: size - self._num_removed(place) for place, size in self.layout.sizes.items()}

    def _num_removed(self, place: str) -> int:
        return int(self._removed[place].ceil())

    def _shrink(self, head: nn.Module) -> None:
        """The proximal step of the squares: the weakest groups' outgoing weights over 1 + 2 * rate * price."""
        for place, energy in outgoing_energies(head).items():
            weakest = energy.argsort(stable=True)[: self._num_removed(place)]
            factors = torch.ones(len(energy))
            factors[weakest] = 1.0 / (1.0 + 2.0 * self._shrink_rate * self._energy_price[place].item())
            scale_outgoing(head, place, factors)

    def _move_removed(self, shares: Scores) -> None:
        """Remove more where multiply-adds are dear, fewer where the next group to go holds much energy.

        The gradient is by numbers of groups, rounded up, in units of an average place's, so that neither it nor the
        rate depends on the head's size; its norm over all places is at most 1.
        """
        gradients = self._gradients(shares, self._widths())
        norm = sum(gradient**2 for gradient in gradients.values()) ** 0.5
        for place, gradient in gradients.items():
            change = self._removal_rate * self._unit * gradient / max(1.0, norm)
            self._removed[place].sub_(change).clamp_(0.0, self.layout.sizes[place] - self.layout.floors[place])

    def _gradients(self, shares: Scores, widths: Widths) -> dict[str, float]:
        saved = self.layout.macs_per_group(widths)
        gradients: dict[str, float] = {}
        for place in self.layout.sizes:
            next_to_go = shares[place].sort().values[self._num_removed(place) :][:1].sum().item()
            energy = self._energy_price[place].item() * next_to_go
            cost = self._cost_price.item() * saved[place] / self.layout.dense_macs
            gradients[place] = self._unit * (energy - cost)
        return gradients

    def _raise_prices(self, shares: Scores, allowed: float) -> None:
        for place, share in shares.items():
            left = share.sort().values[: self._num_removed(place)].sum()
            self._energy_price[place].add_(self._energy_price_rate * left)
        self._cost_price.add_(self._cost_price_rate * (self.raw_share - allowed)).clamp_(min=0.0)

    def _per_mean(self, shares: Scores) -> Scores:
        """Energies over the mean of their place, so that groups of places of different sizes compare."""
        return {place: share * len(share) for place, share in shares.items()}


def _shares_of_places(energies: Scores) -> Scores:
    return {place: energy / energy.sum().clamp(min=1e-30) for place, energy in energies.items()}
