"""Who takes part in a contest: finalists and baselines, each with several learning rates."""

from collections.abc import Sequence
from dataclasses import dataclass

from raysparse.config import Tree
from raysparse.cost.record import Cost
from raysparse.job import SearchJob
from raysparse.models import ModelConfig
from raysparse.models.nasrec.choice import NASRecConfig
from raysparse.train.run_folder import RunFolder


@dataclass(frozen=True)
class Contender:
    """A model that is trained alone."""

    kind: str
    """finalist or baseline."""
    name: str
    model: ModelConfig
    cost: Cost
    facts: Tree
    """What the results say of it besides."""
    drawn: NASRecConfig | None = None
    """A finalist as the search drew it, where that says which of the shared weights it takes."""

    @property
    def is_finalist(self) -> bool:
        """Whether it came out of the search."""
        return self.kind == "finalist"


@dataclass(frozen=True)
class Entrant:
    """A contender with one of the learning rates: a Train run."""

    contender: Contender
    learning_rate: float
    run_folder: str

    @property
    def label(self) -> str:
        """What it is called."""
        return f"{self.contender.kind} {self.contender.name}, learning rate {self.learning_rate:g}"

    @property
    def values(self) -> Tree:
        """What the log knows it by."""
        contender = self.contender
        return {"kind": contender.kind, "name": contender.name, "learning_rate": self.learning_rate}


def entrants_of(job: SearchJob, contenders: Sequence[Contender], folder: RunFolder) -> list[Entrant]:
    """Return each contender with each learning rate."""
    return [
        Entrant(contender, rate, folder.url(f"{contender.kind}s", f"{contender.name}-lr{rate:g}"))
        for contender in contenders
        for rate in job.finalists.learning_rates
    ]
