"""Searchers: which choices of a space to score next, given the scores so far. Pure, driver.

A searcher goes by generations. Proposals are numbered in the order in which they are drawn; those of a generation
follow from the seed, their number and the results of the generations before, so that neither the order in which
results arrive nor a restart between them changes what is proposed.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Annotated, Any, Generic, Literal, Protocol, Self, runtime_checkable

from pydantic import Field, model_validator

from raysparse.config import Config
from raysparse.errors import ConfigError
from raysparse.search.pareto import crowding, sort_fronts
from raysparse.search.space import C, Space

MAX_TRIES = 100
"""Draws of a searcher, and as many free samples after them, among which a new choice has to be."""


@dataclass(frozen=True)
class Proposal(Generic[C]):
    """A choice to score."""

    number: int
    """Place in the order of proposals, from 0."""
    generation: int
    """0 for the initial population."""
    key: str
    """Of its canonical form: no two proposals of a search share it."""
    choice: C
    """As drawn, blocks that nothing reads included: mutations may bring them to life."""


@dataclass(frozen=True)
class Member(Generic[C]):
    """A scored choice of a population."""

    proposal: Proposal[C]
    objectives: Mapping[str, float]
    """By name; smaller is better."""


class Searcher(Protocol[C]):
    """Proposes choices and learns from their scores."""

    @property
    def num_trials(self) -> int:
        """How many choices are proposed, unless the space runs out of them before."""
        ...

    @property
    def ended(self) -> str | None:
        """Why nothing is left to propose and nothing to wait for; None while there is, and until `ask` found so."""
        ...

    def ask(self, count: int) -> list[Proposal[C]]:
        """Hand out up to `count` proposals: fewer, or none, while results are missing that the next ones need."""
        ...

    def tell(self, proposal: Proposal[C], objectives: Mapping[str, float] | None) -> None:
        """Take the result of a proposal that was handed out; None where its trial failed.

        A failed trial counts as a trial, and is never a score and never a parent. ConfigError where an objective
        that the searcher needs is missing or not finite.
        """
        ...

    def release(self, proposal: Proposal[C]) -> None:
        """Take back a proposal whose trial was lost: it is handed out again."""
        ...


@runtime_checkable
class Crossing(Protocol[C]):
    """A space that can also join two choices."""

    def crossover(self, first: C, second: C, random: Random) -> C:
        """Return a choice made from parts of two others."""
        ...


class RandomSearchConfig(Config):
    """Samples of the space, one as good as another."""

    kind: Literal["random"] = "random"
    num_trials: int = Field(default=2048, ge=1)
    """Choices to score."""

    @property
    def all_objectives(self) -> tuple[str, ...]:
        """What is made small: nothing is looked at."""
        return ()

    def resolved(self, quality: str) -> "RandomSearchConfig":  # as the others are asked
        """Return the same: there is nothing to fill in."""
        return self


class RegularizedEvolutionConfig(Config):
    """Ageing evolution on one objective; the defaults are NASRec's (arXiv 2207.07187): 2048 trials."""

    kind: Literal["evolution"] = "evolution"
    objective: str | None = None
    """Name of what is made small; null: by what the space's networks are judged, log_loss or 1-ndcg@10."""
    num_initial: int = Field(default=128, ge=1)
    """Random choices at first, and the size of the population."""
    tournament: int = Field(default=64, ge=1)
    """Members among which the best one is the parent of a generation."""
    num_children: int = Field(default=8, ge=1)
    """Mutated copies of the parent in a generation; as many members, the oldest, leave."""
    num_generations: int = Field(default=240, ge=0)
    """Generations after the initial population."""

    @property
    def all_objectives(self) -> tuple[str, ...]:
        """What is made small."""
        return () if self.objective is None else (self.objective,)

    def resolved(self, quality: str) -> "RegularizedEvolutionConfig":
        """Return the same with its objective, `quality` where none was named."""
        return self.model_copy(update={"objective": self.objective or quality})

    @model_validator(mode="after")
    def _tournament_fits(self) -> Self:
        if self.tournament > self.num_initial:
            raise ValueError(f"tournament at most num_initial ({self.num_initial}); {self.tournament} is more")
        return self


class NSGA2Config(Config):
    """Many objectives at once: fronts and crowding distance (Deb et al. 2002)."""

    kind: Literal["nsga2"] = "nsga2"
    objectives: tuple[str, ...] | None = Field(default=None, min_length=2)
    """Names of what is made small; null: by what the space's networks are judged, and macs."""
    population: int = Field(default=128, ge=2)
    """Random choices at first, children in a generation, and survivors of it."""
    num_generations: int = Field(default=15, ge=0)
    """Generations after the initial population."""
    crossover_rate: float = Field(default=0.9, ge=0, le=1)
    """Share of the children with two parents, in a space that can join two choices."""

    @property
    def all_objectives(self) -> tuple[str, ...]:
        """What is made small."""
        return self.objectives or ()

    def resolved(self, quality: str) -> "NSGA2Config":
        """Return the same with its objectives, `quality` and macs where none were named."""
        return self.model_copy(update={"objectives": self.objectives or (quality, "macs")})

    @model_validator(mode="after")
    def _distinct_objectives(self) -> Self:
        names = self.all_objectives
        if len(set(names)) != len(names):
            raise ValueError(f"objectives of different names; found {', '.join(names)}")
        return self


SearcherConfig = Annotated[RandomSearchConfig | RegularizedEvolutionConfig | NSGA2Config, Field(discriminator="kind")]


@dataclass(frozen=True)
class _Schedule:
    """How many choices each generation proposes."""

    num_initial: int
    num_children: int = 0
    num_generations: int = 0

    @property
    def num_trials(self) -> int:
        return self.num_initial + self.num_generations * self.num_children

    def size_of(self, generation: int) -> int:
        if generation == 0:
            return self.num_initial
        return self.num_children if generation <= self.num_generations else 0


class GenerationalSearch(ABC, Generic[C]):
    """Keeps the books of a search that goes by generations; the subclasses draw and select.

    It is a `Searcher`, which tells what its methods promise.
    """

    def __init__(self, space: Space[C], seed: int, objectives: Sequence[str], schedule: _Schedule) -> None:
        self._space = space
        self._seed = seed
        self._objectives = tuple(objectives)
        self._population: list[Member[C]] = []
        self._keys: set[str] = set()
        self._generation = 0
        self._schedule = schedule
        self._num_left = schedule.size_of(0)
        self._open: dict[int, Proposal[C]] = {}
        self._released: dict[int, Proposal[C]] = {}
        self._scored: list[Member[C]] = []
        self._out_of_choices = False

    @abstractmethod
    def _draw(self, random: Random) -> C:
        """Draw a choice of the current generation from the population."""

    @abstractmethod
    def _select(self, scored: list[Member[C]]) -> list[Member[C]]:
        """Return the population after a generation, whose scored choices come in the order of their numbers."""

    @property
    def num_trials(self) -> int:
        """How many choices are proposed, unless the space runs out of them before."""
        return self._schedule.num_trials

    @property
    def population(self) -> tuple[Member[C], ...]:
        """Members after the last finished generation."""
        return tuple(self._population)

    @property
    def ended(self) -> str | None:
        """Why nothing is left to propose and nothing to wait for; None while there is."""
        if self._open or self._released:
            return None
        if self._out_of_choices:
            return (
                f"the search ends after {len(self._keys)} of {self.num_trials} trials: "
                f"{2 * MAX_TRIES} draws in a row found no choice that was not proposed before"
            )
        return f"all {self.num_trials} trials are done" if self._num_left == 0 else None

    def ask(self, count: int) -> list[Proposal[C]]:
        """Hand out up to `count` proposals: fewer, or none, while results are missing that the next ones need."""
        handed: list[Proposal[C]] = []
        while len(handed) < count and (proposal := self._next()) is not None:
            self._open[proposal.number] = proposal
            handed.append(proposal)
        return handed

    def tell(self, proposal: Proposal[C], objectives: Mapping[str, float] | None) -> None:
        """Take the result of a proposal that was handed out; None where its trial failed."""
        if objectives is not None:
            self._check(proposal, objectives)
        self._close(proposal)
        if objectives is not None:
            self._scored.append(Member(proposal, dict(objectives)))
        self._end_generation()

    def release(self, proposal: Proposal[C]) -> None:
        """Take back a proposal whose trial was lost: it is handed out again."""
        self._close(proposal)
        self._released[proposal.number] = proposal

    def _close(self, proposal: Proposal[C]) -> None:
        if self._open.pop(proposal.number, None) is None:
            raise ValueError(f"proposal {proposal.number} is not handed out: it was told before, or never asked for")

    def _check(self, proposal: Proposal[C], objectives: Mapping[str, float]) -> None:
        missing = [name for name in self._objectives if name not in objectives]
        if missing:
            raise ConfigError(
                f"trial {proposal.number} gave no {', '.join(missing)}, which the search makes small; "
                f"it gave: {', '.join(objectives) or 'nothing'}"
            )
        odd = [f"{name} = {value}" for name, value in objectives.items() if not math.isfinite(value)]
        if odd:
            raise ConfigError(
                f"trial {proposal.number} gave {', '.join(odd)}; a score is finite, anything else an error"
            )

    def _next(self) -> Proposal[C] | None:
        if self._released:
            return self._released.pop(min(self._released))
        if self._num_left == 0 or self._out_of_choices:
            return None
        proposal = self._draw_new(number=len(self._keys))
        if proposal is None:
            self._out_of_choices = True
            self._end_generation()
            return None
        self._keys.add(proposal.key)
        self._num_left -= 1
        return proposal

    def _draw_new(self, number: int) -> Proposal[C] | None:
        random = Random(f"{self._seed}/proposal/{number}")
        for attempt in range(2 * MAX_TRIES):
            # A parent whose neighbours are all known is no reason to end: the rest of the space comes next.
            choice = self._draw(random) if attempt < MAX_TRIES else self._space.sample(random)
            key = self._space.key(choice)
            if key not in self._keys:
                return Proposal(number, self._generation, key, choice)
        return None

    def _end_generation(self) -> None:
        if self._open or self._released or (self._num_left and not self._out_of_choices):
            return
        self._population = self._select(sorted(self._scored, key=_number))
        self._scored = []
        if not self._out_of_choices:
            self._generation += 1
            self._num_left = self._schedule.size_of(self._generation)


class RandomSearch(GenerationalSearch[C]):
    """Independent samples of the space: one generation, in which nothing waits for a result."""

    def __init__(self, config: RandomSearchConfig, space: Space[C], seed: int) -> None:
        super().__init__(space, seed, (), _Schedule(config.num_trials))

    def _draw(self, random: Random) -> C:
        return self._space.sample(random)

    def _select(self, scored: list[Member[C]]) -> list[Member[C]]:
        return scored


class RegularizedEvolution(GenerationalSearch[C]):
    """Ageing evolution (Real et al. 2019, arXiv 1802.01548): the oldest leave, however good they are.

    As in NASRec, a generation has one parent, the best of a random part of the population, and its children are
    mutated several times over, less often as the search goes on.
    """

    def __init__(self, config: RegularizedEvolutionConfig, space: Space[C], seed: int) -> None:
        """`config` is resolved: it has an objective."""
        self._config = config
        schedule = _Schedule(config.num_initial, config.num_children, config.num_generations)
        super().__init__(space, seed, config.all_objectives, schedule)

    def _draw(self, random: Random) -> C:
        if not self._population:  # the initial one, or one of which every trial failed
            return self._space.sample(random)
        choice = self._parent().proposal.choice
        for _ in range(num_mutations(self._generation - 1, self._config.num_generations)):
            choice = self._space.mutate(choice, random)
        return choice

    def _parent(self) -> Member[C]:
        # Drawn from the generation alone, so that all its children have the same.
        random = Random(f"{self._seed}/parent/{self._generation}")
        rivals = random.sample(self._population, min(self._config.tournament, len(self._population)))
        return min(rivals, key=lambda member: (member.objectives[self._objectives[0]], _number(member)))

    def _select(self, scored: list[Member[C]]) -> list[Member[C]]:
        return [*self._population, *scored][-self._config.num_initial :]


class NSGA2(GenerationalSearch[C]):
    """Non-dominated sorting with crowding distance (Deb et al. 2002, IEEE TEC 6(2), section III).

    A child is a mutated copy of one parent, or of two joined where the space can; parents and children compete for
    the next population.
    """

    def __init__(self, config: NSGA2Config, space: Space[C], seed: int) -> None:
        self._config = config
        self._ranks: dict[int, tuple[int, float]] = {}
        schedule = _Schedule(config.population, config.population, config.num_generations)
        super().__init__(space, seed, config.all_objectives, schedule)

    def _draw(self, random: Random) -> C:
        if not self._population:  # the initial one, or one of which every trial failed
            return self._space.sample(random)
        choice = self._parent(random)
        if isinstance(self._space, Crossing) and random.random() < self._config.crossover_rate:
            choice = self._space.crossover(choice, self._parent(random), random)
        return self._space.mutate(choice, random)

    def _parent(self, random: Random) -> C:
        rivals = random.sample(self._population, min(2, len(self._population)))
        return min(rivals, key=self._rank).proposal.choice

    def _select(self, scored: list[Member[C]]) -> list[Member[C]]:
        members = [*self._population, *scored]
        points = [[member.objectives[name] for name in self._objectives] for member in members]
        self._ranks = {}
        for level, indices in enumerate(sort_fronts(points)):
            distances = crowding([points[index] for index in indices])
            for index, distance in zip(indices, distances, strict=True):
                self._ranks[_number(members[index])] = (level, -distance)
        return sorted(members, key=self._rank)[: self._config.population]

    def _rank(self, member: Member[C]) -> tuple[int, float, int]:
        return (*self._ranks[_number(member)], _number(member))


class ListedSearch(GenerationalSearch[C]):
    """Choices that were found in another way, one after the other: nothing is drawn."""

    def __init__(self, space: Space[C], choices: Sequence[C]) -> None:
        # Two budgets may lead to one network, which is scored once.
        self._choices = list({space.key(choice): choice for choice in choices}.values())
        super().__init__(space, 0, (), _Schedule(len(self._choices)))

    def _draw(self, random: Random) -> C:  # the choices are there
        return self._choices[len(self._keys)]

    def _select(self, scored: list[Member[C]]) -> list[Member[C]]:
        return scored


def num_mutations(generation: int, num_generations: int) -> int:
    """Mutations on the way from parent to child: 6 in generation 0, 1 in the last fifth.

    NASRec's floor((240 - g) / 48) + 1 for any number of generations.
    """
    return 5 * (num_generations - generation) // num_generations + 1


def build_searcher(config: SearcherConfig, space: Space[C], seed: int) -> GenerationalSearch[C]:
    """Return the searcher that a resolved config describes; all it draws follows from `seed`."""
    if isinstance(config, RandomSearchConfig):
        return RandomSearch(config, space, seed)
    if isinstance(config, RegularizedEvolutionConfig):
        return RegularizedEvolution(config, space, seed)
    return NSGA2(config, space, seed)


def _number(member: Member[Any]) -> int:
    return member.proposal.number
