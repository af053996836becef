"""Who takes part in a contest: finalists and baselines, each with several learning rates."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from raysparse.config import Tree
from raysparse.cost.record import Cost
from raysparse.job import SearchJob, TrainJob
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
    """A finalist as the search drew it, where it inherits the shared weights, of which that says which it takes."""

    @property
    def is_finalist(self) -> bool:
        """Whether it came out of the search."""
        return self.kind == "finalist"

    @property
    def identity(self) -> Tree:
        """What tells it from any other contender of the job, whatever rank either has; JSON."""
        drawn = {} if self.drawn is None else {"drawn": self.drawn.model_dump(mode="json")}
        return {"kind": self.kind, "model": self.model.model_dump(mode="json"), **drawn}

    @property
    def run_name(self) -> str:
        """What its runs are called, and their folders: the same for this network alone, in any order of finalists."""
        digest = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()
        return f"{self.model.kind}-{digest[:12]}"


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
        """What the log knows it by: all that differs between the runs of a contest."""
        return {**self.contender.identity, "learning_rate": self.learning_rate}


def run_of(job: SearchJob, name: str, run_folder: str, **own: Any) -> TrainJob:
    """Return a train job of a search, with what all its runs share."""
    shared = {key: getattr(job, key) for key in ("seed", "sharding", "scaling", "checkpoint")}
    return TrainJob(kind="train", name=name, run_folder=run_folder, **shared, **own)


def run_of_entrant(job: SearchJob, entrant: Entrant, **own: Any) -> TrainJob:
    """Return the train job of a finalist or a baseline, but for what it reads."""
    contender = entrant.contender
    return run_of(
        job,
        f"{contender.kind}-{contender.run_name}",
        entrant.run_folder,
        model=contender.model,
        optimizer=job.finalists.optimizer.with_dense_rate(entrant.learning_rate),
        **own,
    )


def entrants_of(job: SearchJob, contenders: Sequence[Contender], folder: RunFolder) -> list[Entrant]:
    """Return each contender with each learning rate."""
    return [
        Entrant(contender, rate, folder.url(f"{contender.kind}s", f"{contender.run_name}-lr{rate}"))
        for contender in contenders
        for rate in job.finalists.learning_rates
    ]
