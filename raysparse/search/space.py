"""What a search asks of a space."""

from __future__ import annotations

import json
from collections.abc import Iterable
from random import Random
from typing import TYPE_CHECKING, Protocol, TypeVar

from raysparse.config import Config, Tree
from raysparse.errors import ConfigError

if TYPE_CHECKING:  # a population needs no torch, which the count of a cost brings along
    from raysparse.cost.record import Cost

C = TypeVar("C", bound=Config)

MAX_MUTATIONS = 50
"""Mutations tried for one that changes the network."""

MAX_SAMPLES = 200
"""Samples tried for one within the budget, before a walk from the smallest network."""

Fault = tuple[str, object, object]
"""The key in a choice, what was found there, what is allowed."""


class Space(Protocol[C]):
    """All choices of a search. Any process; random numbers come from the caller alone."""

    @property
    def cheapest(self) -> C:
        """The network of the fewest multiply-adds."""
        ...

    def sample(self, random: Random) -> C:
        """Draw a choice."""
        ...

    def mutate(self, choice: C, random: Random) -> C:
        """Change a choice by one mutation, never into one of equal canonical form if that can be avoided."""
        ...

    def canonical(self, choice: C) -> C:
        """Return the member that all equal networks share: dead blocks removed, sets sorted, unused fields reset."""
        ...

    def key(self, choice: C) -> str:
        """Return a short stable text of the canonical form, equal for equal canonical forms alone."""
        ...

    def cost(self, choice: C) -> Cost:
        """Return what serving one row with a choice takes."""
        ...

    def parse(self, tree: object) -> C:
        """Read a choice from YAML or JSON; ConfigError with dotted keys."""
        ...


def plain_tree(tree: object) -> Tree:
    """Return a choice as what YAML and JSON hold; ConfigError where it holds anything else."""
    if not isinstance(tree, dict):
        raise ConfigError(f"a choice is keys and values; found {type(tree).__name__}")
    try:
        return json.loads(json.dumps(tree))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"a choice holds text, numbers and lists: {error}") from error


def refuse_faults(faults: Iterable[Fault]) -> None:
    """Raise ConfigError with a line for each, if there is one."""
    lines = "\n".join(f"  {key}: found {found}; allowed: {allowed}" for key, found, allowed in faults)
    if lines:
        raise ConfigError(f"the choice is not in the space:\n{lines}")
