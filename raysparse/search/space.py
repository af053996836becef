"""What a search asks of a space."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Protocol, TypeVar

from raysparse.config import Config

if TYPE_CHECKING:  # a population needs no torch, which the count of a cost brings along
    from raysparse.cost.record import Cost

C = TypeVar("C", bound=Config)


class Space(Protocol[C]):
    """All choices of a search. Any process; random numbers come from the caller alone."""

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
