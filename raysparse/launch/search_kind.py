"""What a search asks of the kind of its models: clicks, or sequences of items."""

from typing import Any, Protocol

import torch

from raysparse.config import Tree
from raysparse.data.dataset import Dataset
from raysparse.job import SearchJob, TrainJob
from raysparse.launch.click_search import ClickSearch
from raysparse.launch.entrants import Entrant
from raysparse.launch.sequence_search import SequenceSearch
from raysparse.models.sasrec.menu import SASRecSpaceConfig
from raysparse.search.quality import Quality
from raysparse.search.relaxation import Found
from raysparse.search.space import Space
from raysparse.train.run_folder import RunFolder


class ChoiceScorer(Protocol):
    """Scores choices one after the other; in an actor."""

    def score(self, choice: Any, objectives: tuple[str, ...]) -> dict[str, float]:
        """Return the objectives of a choice by name, those that are cheap in any case."""
        ...


class SearchKind(Protocol):
    """How networks of a kind are trained together, scored, and trained alone."""

    @property
    def quality(self) -> Quality:
        """By what networks are judged."""
        ...

    @property
    def space(self) -> Space[Any]:
        """The networks there are."""
        ...

    @property
    def num_days_before_test(self) -> int:
        """Days, or epochs, of a whole Train run by which runs may be stopped: the test chooses nothing."""
        ...

    @property
    def last_days(self) -> int:
        """Days at the end by which runs are compared."""
        ...

    def supernet_job(self, folder: RunFolder) -> TrainJob:
        """Return the train job of the shared weights, which ends with the cache that trials read."""
        ...

    def open_cache(self, url: str) -> str:
        """Return the digest of a cache's weights; CheckpointError where it is not whole."""
        ...

    def scorer(self, url: str, device: torch.device) -> ChoiceScorer:
        """Read a cache to score with; CheckpointError where it belongs to another search."""
        ...

    def relaxed(self, url: str) -> list[Found]:
        """Search by gradients with what a cache holds; in this process."""
        ...

    def train_job(self, entrant: Entrant, folder: RunFolder) -> TrainJob:
        """Return the train job of a finalist or a baseline."""
        ...

    def scores(self, history: list[Tree]) -> Tree:
        """Return the metrics of a finished run by `validation_` and `test_` names; None where they are not defined."""
        ...

    def facts(self) -> Tree:
        """Return what the results say of the search as a whole."""
        ...


def kind_of(job: SearchJob, dataset: Dataset) -> SearchKind:
    """Return what is particular to a job's kind of models; ConfigError where they do not fit the data set."""
    return SequenceSearch(job, dataset) if isinstance(job.space, SASRecSpaceConfig) else ClickSearch.of(job, dataset)
