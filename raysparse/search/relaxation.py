"""Differentiable search of elastic encoders: weights over the options of each axis, learned by gradients.

First order and bilevel (Liu et al. 2019, arXiv 1806.09055, section 2.3, with its xi at 0): the shared weights take a
step on what is learned, the weights over options one on what was held out. Options are drawn by straight-through
Gumbel softmax (Jang et al. 2017, arXiv 1611.01144). EASRec (arXiv 2402.00390, its public code) mixes all options, and
learns on one level: settings. Any process.
"""

import itertools
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from raysparse.config import Config
from raysparse.cost.encoder import encoder_macs
from raysparse.errors import ConfigError
from raysparse.models.sasrec.config import SASRecConfig
from raysparse.models.sasrec.menu import SASRecSpaceConfig
from raysparse.models.sasrec.relaxed import Weights
from raysparse.search.pressure import DualPressureConfig, Pressure, PressureConfig, build_pressures

_REACH = 2.0
"""Largest logit. Without a bound the expected cost ends at 0.23 to 1.0 of a budget: what was given up while the
multiplier was high comes back no more. With it, at 0.76 to 1.16 (losses of three sizes, three budgets)."""
_LEAST_SHARE = 0.95
"""Of a budget, that the network should take where there is one that does."""

Candidate = tuple[float, float, int, list[tuple[int, ...]]]
"""Log probability, cost, place of the width, and of the heads, the ratio and the kind of each block."""


class DifferentiableConfig(Config):
    """Gradients choose the network: one for each budget or strength."""

    kind: Literal["differentiable"] = "differentiable"
    constraint: PressureConfig
    """What keeps it cheap."""
    options: Literal["drawn", "mixed"] = "drawn"
    """One option of each axis, drawn for each step, or all of them at once, each to the share that its weight gives it:
    EASRec's way, whose shared weights then learn as that mixture."""
    learned_from: Literal["held_out", "training"] = "held_out"
    """Targets that choose: the last one of each row of the training part, which the shared weights do not see, or the
    same as theirs, as in EASRec."""
    num_steps: int = Field(default=400, ge=1)
    """Steps of the choice, each with a batch."""
    weight_steps: int = Field(default=1, ge=1)
    """Steps of the shared weights before each of those, with a batch each; 10 in EASRec."""
    learning_rate: float = Field(default=0.05, gt=0)
    """Of Adam, for the weights over options."""
    weight_learning_rate: float = Field(default=1e-4, ge=0)
    """Of Adam, for the encoder's shared weights, which learn beside; 0: they stay as the supernet's training left them.
    The search throws them away."""
    first_temperature: float = Field(default=1.0, gt=0)
    """Of the softmax over options; it falls by equal factors, step by step."""
    last_temperature: float = Field(default=0.5, gt=0)
    """At its end; at 0.1 hardly any gradient is left."""

    @model_validator(mode="after")
    def _cools_down(self) -> "DifferentiableConfig":
        if self.last_temperature > self.first_temperature:
            raise ValueError(
                f"last_temperature of at most first_temperature, {self.first_temperature}; found "
                f"{self.last_temperature}"
            )
        return self

    @property
    def num_networks(self) -> int:
        """Networks that are found."""
        constraint = self.constraint
        return len(constraint.budgets if isinstance(constraint, DualPressureConfig) else constraint.strengths)

    @property
    def all_objectives(self) -> tuple[str, ...]:
        """What is made small: its own loss and cost, not a trial's."""
        return ()

    def resolved(self, quality: str) -> "DifferentiableConfig":  # as the others are asked
        """Return the same: there is nothing to fill in."""
        return self


@dataclass(frozen=True)
class Found:
    """What a search came to."""

    choice: SASRecConfig
    expected_macs: float
    """Of the weights over options at the end."""
    trace: list[dict[str, float]]
    """Of each step: the loss that chooses, expected multiply-adds, temperature, and what the pressure notes."""


ChoiceLoss = Callable[[Weights, int], Tensor]
"""The loss of a batch that chooses, by the weights over options and the number of the batch."""
WeightStep = Callable[[SASRecConfig | Weights, int], None]
"""Has the shared weights learn a batch as one network, or as a mixture of all."""


class Relaxation:
    """Logits over the options of each axis, at first all alike."""

    def __init__(self, space: SASRecSpaceConfig, seed: int) -> None:
        self.space = space
        self.costs = block_costs(space)
        self.most = int(self.costs.max()) * max(space.depths)
        """Multiply-adds of the dearest network."""
        self._seed = seed
        blocks = max(space.depths)
        sizes = [(len(space.widths),), (len(space.depths),)]
        sizes += [(blocks, len(options)) for options in (space.heads, space.ffn_ratios, space.attentions)]
        self.logits = [torch.zeros(size, requires_grad=True) for size in sizes]

    @property
    def probabilities(self) -> Weights:
        """What the logits say of each option."""
        return Weights(*(logits.softmax(-1) for logits in self.logits))

    def draw(self, step: int, temperature: float) -> Weights:
        """Draw one option per axis from (seed, step): 0 and 1 forward, the gradient of a softmax at `temperature`."""
        generator = torch.Generator().manual_seed(zlib.crc32(repr((self._seed, step)).encode()))
        return Weights(*(_straight_through(logits, temperature, generator) for logits in self.logits))

    def mix(self, temperature: float) -> Weights:
        """Return the shares of all options at a temperature."""
        return Weights(*((logits / temperature).softmax(-1) for logits in self.logits))

    def expected_macs(self, weights: Weights) -> Tensor:
        """Return the mean multiply-adds over all choices, each as probable as its options together; exact."""
        # P(depth > layer), which is when a block is there.
        depths = torch.tensor(self.space.depths).unsqueeze(1)
        there = weights.depth @ (depths > torch.arange(weights.heads.shape[0])).float()
        of_blocks = torch.einsum(
            "whrk,w,bh,br,bk->b", self.costs, weights.width, weights.heads, weights.ratios, weights.kinds
        )
        return there @ of_blocks

    @torch.no_grad()
    def keep_in_reach(self) -> None:
        """Keep logits close enough to each other for every option to come back."""
        for logits in self.logits:
            logits.sub_(logits.mean(-1, keepdim=True)).clamp_(-_REACH, _REACH)

    def choice_of(self, weights: Weights) -> SASRecConfig:
        """Return the network of the most probable option of each axis."""
        depth = self.space.depths[int(weights.depth.argmax())]
        places = [axis[:depth].argmax(-1).tolist() for axis in (weights.heads, weights.ratios, weights.kinds)]
        return self._network(int(weights.width.argmax()), list(zip(*places, strict=True)))

    @torch.no_grad()
    def best_within(self, most: int) -> SASRecConfig:
        """Return the most probable network that takes between 95 and 100 percent of a cost, or at most it.

        ConfigError where even the smallest takes more.
        """
        found = [candidate for width in range(len(self.space.widths)) for candidate in self._within(width, most)]
        if not found:
            smallest = int(self.costs.min()) * min(self.space.depths)
            raise ConfigError(
                f"searcher.constraint.budgets: found {most:,}; the smallest network of the space takes {smallest:,} "
                f"multiply-adds for a history. Allowed: {smallest:,} or more"
            )
        close = [candidate for candidate in found if candidate[1] >= _LEAST_SHARE * most]
        _, _, width, blocks = max(close or found, key=lambda candidate: candidate[0])
        return self._network(width, blocks)

    def _within(self, width: int, most: int) -> list[Candidate]:
        """Return per depth, and close to the cost or not, the most probable network of a width.

        Of first blocks that take the same together only the most probable ones can begin it.
        """
        weights = self.probabilities
        options = list(itertools.product(*(range(size) for size in self.costs.shape[1:])))
        heads, ratios, kinds = (torch.tensor(part) for part in zip(*options, strict=True))
        logs = weights.heads[:, heads].log() + weights.ratios[:, ratios].log() + weights.kinds[:, kinds].log()
        cost_of = self.costs[width, heads, ratios, kinds].double()
        log, cost = weights.width[width].log().reshape(1), torch.zeros(1, dtype=torch.float64)
        blocks: list[list[int]] = [[]]
        found: list[Candidate] = []
        for layer in range(max(self.space.depths)):
            log = (log.unsqueeze(1) + logs[layer]).flatten()
            cost = (cost.unsqueeze(1) + cost_of).flatten()
            kept = (cost <= most).nonzero().squeeze(1)
            kept = kept[log[kept].argsort(descending=True, stable=True)]
            kept = kept[_first_of_each(cost[kept])]
            log, cost = log[kept], cost[kept]
            blocks = [[*blocks[place // len(options)], place % len(options)] for place in kept.tolist()]
            if layer + 1 in self.space.depths and len(blocks):
                of_depth = weights.depth[self.space.depths.index(layer + 1)].log()
                close = (cost >= _LEAST_SHARE * most).nonzero().squeeze(1)[:1].tolist()
                for place in dict.fromkeys([0, *close]):
                    chosen = [options[option] for option in blocks[place]]
                    found.append((float(log[place] + of_depth), float(cost[place]), width, chosen))
        return found

    def _network(self, width: int, blocks: list[tuple[int, ...]]) -> SASRecConfig:
        space = self.space
        return space.network(
            space.widths[width],
            self._length,
            [space.heads[heads] for heads, _, _ in blocks],
            [space.ffn_ratios[ratio] for _, ratio, _ in blocks],
            [space.attentions[kind] for _, _, kind in blocks],
        )

    @property
    def _length(self) -> int:
        return max(self.space.lengths)


def block_costs(space: SASRecSpaceConfig) -> Tensor:
    """Multiply-adds of a block for the longest history, `[widths, heads, ffn_ratios, attentions]`."""
    length = max(space.lengths)
    costs = [
        encoder_macs(space.network(width, length, [heads], [ratio], [kind]), length)
        for width in space.widths
        for heads in space.heads
        for ratio in space.ffn_ratios
        for kind in space.attentions
    ]
    sizes = (len(space.widths), len(space.heads), len(space.ffn_ratios), len(space.attentions))
    return torch.tensor(costs, dtype=torch.float32).view(sizes)


def relax(
    space: SASRecSpaceConfig,
    config: DifferentiableConfig,
    seed: int,
    losses: Callable[[], tuple[ChoiceLoss, WeightStep | None]],
) -> list[Found]:
    """Search a network for each budget or strength; `losses` begins anew with the supernet's weights for each.

    ConfigError where a budget is below the smallest network.
    """
    relaxation, constraint = Relaxation(space, seed), config.constraint
    budgets: tuple[int | None, ...] = (None,) * config.num_networks
    if isinstance(constraint, DualPressureConfig):
        budgets = constraint.budgets
        for budget in constraint.budgets:
            relaxation.best_within(budget)
    pressures = build_pressures(constraint, relaxation.most)
    return [
        _search(Relaxation(space, seed), config, pressure, budget, *losses())
        for pressure, budget in zip(pressures, budgets, strict=True)
    ]


def _search(
    relaxation: Relaxation,
    config: DifferentiableConfig,
    pressure: Pressure,
    budget: int | None,
    choice_loss: ChoiceLoss,
    weight_step: WeightStep | None,
) -> Found:
    most = relaxation.most
    optimizer = torch.optim.Adam(relaxation.logits, lr=config.learning_rate)
    trace: list[dict[str, float]] = []
    for step in range(config.num_steps):
        progress = step / config.num_steps
        temperature = temperature_at(config, progress)
        first, last = step * config.weight_steps, (step + 1) * config.weight_steps - 1
        if weight_step is not None:
            for batch in range(first, last + 1):
                weight_step(_learner(relaxation, config, batch, temperature), batch)
        probabilities = relaxation.probabilities
        weights = _weights(relaxation, config, last, temperature)
        # A mixture of all options costs what it mixes; drawn ones come as often as they are probable.
        ratio = relaxation.expected_macs(weights if config.options == "mixed" else probabilities) / most
        loss = choice_loss(weights, last)
        optimizer.zero_grad()
        (loss + pressure.term(ratio, probabilities.depth, progress)).backward()
        optimizer.step()
        relaxation.keep_in_reach()
        noted = pressure.update(ratio.item(), progress)
        trace.append({"loss": loss.item(), "macs": most * ratio.item(), "temperature": temperature, **noted})
    probabilities = relaxation.probabilities
    choice = relaxation.choice_of(probabilities) if budget is None else relaxation.best_within(budget)
    return Found(choice, relaxation.expected_macs(probabilities).item(), trace)


def _weights(relaxation: Relaxation, config: DifferentiableConfig, batch: int, temperature: float) -> Weights:
    return relaxation.mix(temperature) if config.options == "mixed" else relaxation.draw(batch, temperature)


@torch.no_grad()
def _learner(
    relaxation: Relaxation, config: DifferentiableConfig, batch: int, temperature: float
) -> SASRecConfig | Weights:
    weights = _weights(relaxation, config, batch, temperature)
    return weights if config.options == "mixed" else relaxation.choice_of(weights)


def temperature_at(config: DifferentiableConfig, progress: float) -> float:
    """Return the temperature at a share of the steps."""
    return config.first_temperature * (config.last_temperature / config.first_temperature) ** progress


def _first_of_each(values: Tensor) -> Tensor:
    """The places where each value stands first, ascending."""
    _, of = values.unique(return_inverse=True)
    places = torch.arange(len(values))
    first = torch.full((int(of.max()) + 1 if len(of) else 0,), len(values)).scatter_reduce(0, of, places, "amin")
    return first.sort().values


def _straight_through(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    uniform = torch.rand(logits.shape, generator=generator).clamp(min=1e-9, max=1 - 1e-7)
    soft = ((logits - (-uniform.log()).log()) / temperature).softmax(-1)
    hard = torch.zeros_like(soft).scatter_(-1, soft.argmax(-1, keepdim=True), 1.0)
    return hard + soft - soft.detach()
