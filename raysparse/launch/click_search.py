"""Searches for networks that predict clicks: NASRec's space, over a stream of days."""

from collections.abc import Sequence

import torch

from raysparse.callbacks import FeatureCacheConfig
from raysparse.config import Tree
from raysparse.data.dataset import Dataset, Day
from raysparse.data.schema import Schema
from raysparse.data.selection import select_days
from raysparse.data.split import Split, split_days
from raysparse.errors import ConfigError
from raysparse.job import SearchJob, StartFromConfig, TrainJob
from raysparse.launch.entrants import Entrant, run_of, run_of_entrant
from raysparse.models.nasrec.menu import CTRSpaceConfig
from raysparse.models.nasrec.supernet import NASRecSupernetConfig
from raysparse.report.search_run import SUPERNET
from raysparse.search.ctr_space import CTRSpace
from raysparse.search.feature_cache import FeatureCache
from raysparse.search.quality import CLICKS
from raysparse.search.relaxation import Found
from raysparse.search.scoring import Scorer
from raysparse.train.metrics import entropy
from raysparse.train.run_folder import RunFolder
from raysparse.train.summary import DENSE

CACHE = "cache"
"""Folder of what trials read."""


class ClickSearch:
    """What is particular to clicks; a `SearchKind`."""

    quality = CLICKS

    def __init__(self, job: SearchJob, schema: Schema, split: Split) -> None:
        assert isinstance(job.space, CTRSpaceConfig)
        self._job = job
        self._config = job.space
        self.split = split
        self.space = CTRSpace(job.space, schema)

    @classmethod
    def of(cls, job: SearchJob, dataset: Dataset) -> "ClickSearch":
        """Cut the data set's days; ConfigError where too few are left to train on."""
        if dataset.schema.task != "click":
            raise ConfigError(
                f"space.kind: found {job.space.kind}, but the data set is of sequences; allowed for such: sasrec"
            )
        days = select_days(dataset, job.data.first_day, job.data.last_day, job.data.epochs)
        return cls(job, dataset.schema, split_days(days, job.split))

    @property
    def num_days_before_test(self) -> int:
        """Training and validation days."""
        return len(self.split.training) + len(self.split.validation)

    @property
    def last_days(self) -> int:
        """Validation and test days."""
        return len(self.split.validation) + len(self.split.test)

    def supernet_job(self, folder: RunFolder) -> TrainJob:
        """Return the train job of the shared weights, on the training days; it ends with its cache."""
        job = self._job
        own = {"last_day": self.split.training[-1].day, "batch_size": job.supernet.batch_size or job.data.batch_size}
        return run_of(
            job,
            f"{job.name}-{SUPERNET}",
            folder.url(SUPERNET),
            data=job.data.model_copy(update=own),
            model=NASRecSupernetConfig(space=self._config),
            optimizer=job.supernet.optimizer,
            callbacks=(
                job.supernet.sampling,
                FeatureCacheConfig(
                    folder=folder.url(CACHE),
                    tuning_rows=job.scoring.tuning_rows,
                    validation_days=len(self.split.validation),
                    validation_rows=job.scoring.validation_rows,
                ),
            ),
        )

    def open_cache(self, url: str) -> str:
        """Return the digest of a cache's weights; CheckpointError where it is not whole."""
        return FeatureCache.open(url).manifest.supernet

    def scorer(self, url: str, device: torch.device) -> Scorer:
        """Read a cache to score with; CheckpointError where it belongs to another search."""
        return Scorer(FeatureCache.open(url), self.space, self._job.scoring, self._job.seed, device)

    def relaxed(self, url: str) -> list[Found]:
        """Refuse: a job with such a searcher is not valid."""
        raise NotImplementedError(f"{url}: networks for clicks are not searched by gradients")

    def train_job(self, entrant: Entrant, folder: RunFolder) -> TrainJob:
        """Return the train job of a finalist or a baseline, over all days or the last ones where it inherits."""
        job, contender = self._job, entrant.contender
        start_from, data = None, job.data
        if contender.drawn is not None and job.finalists.weights == "inherited":
            start_from = StartFromConfig(run_folder=folder.url(SUPERNET), drawn=contender.drawn)
            training = self.split.training
            seen = min(job.finalists.inherited_days, len(training))
            days = (*training[len(training) - seen :], *self.split.validation)
            data = data.model_copy(update={"first_day": days[0].day})
        return run_of_entrant(job, entrant, data=data, start_from=start_from)

    def scores(self, history: list[Tree]) -> Tree:
        """Return log loss and AUC over the validation and the test days."""
        lines = [line for line in history if line["arm"] == DENSE]
        validation, test = mean_scores(lines, self.split.validation), mean_scores(lines, self.split.test)
        return {
            **{f"validation_{name}": value for name, value in validation.items()},
            **{f"test_{name}": value for name, value in test.items()},
        }

    def facts(self) -> Tree:
        """Return the days, the generating teacher's own loss where there is one, and the size of the space."""
        size = self.space.size()
        return {
            "validation_days": [day.day for day in self.split.validation],
            "test_days": [day.day for day in self.split.test],
            "teacher": {
                "validation_log_loss": best_log_loss(self.split.validation),
                "test_log_loss": best_log_loss(self.split.test),
            },
            "size": {
                "published": size.published,
                "sampled": size.sampled,
                "sampled_with_gates": size.sampled_with_gates,
            },
        }


def mean_scores(history: Sequence[Tree], days: Sequence[Day]) -> dict[str, float | None]:
    """Return log loss and AUC over some days of a run, each day weighted by its rows; null where none defines it."""
    names = {day.day for day in days}
    records = [record for record in history if record["day"] in names]
    return {name: _mean([(record[name], record["rows"]) for record in records]) for name in ("log_loss", "auc")}


def best_log_loss(days: Sequence[Day]) -> float | None:
    """Return the teacher's own log loss over some days, where the stream was generated by one."""
    known = [(day.best_ne * entropy(day.base_rate), day.rows) for day in days if day.best_ne is not None]
    return _mean(known) if len(known) == len(days) else None


def _mean(values: Sequence[tuple[float | None, int]]) -> float | None:
    defined = [(value, rows) for value, rows in values if value is not None]
    return sum(value * rows for value, rows in defined) / sum(rows for _, rows in defined) if defined else None
