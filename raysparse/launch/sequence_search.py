"""Searches for encoders of histories: elastic SASRec, over epochs of a data set that leaves out the last events."""

import itertools
from collections.abc import Iterator
from math import ceil

import torch

from raysparse.callbacks import SequenceCacheConfig
from raysparse.callbacks.early_stop import BEST
from raysparse.config import Tree
from raysparse.data.batch import Batch
from raysparse.data.dataset import TEST, VALIDATION, Dataset
from raysparse.data.selection import select_days
from raysparse.errors import ConfigError
from raysparse.job import SearchJob, StartFromConfig, TrainJob
from raysparse.launch.click_search import CACHE
from raysparse.launch.entrants import Entrant, run_of, run_of_entrant
from raysparse.launch.task import item_draws, stream_of
from raysparse.models.sasrec.menu import SASRecSpaceConfig
from raysparse.models.sasrec.supernet import SASRecSupernetConfig
from raysparse.report.search_run import SUPERNET
from raysparse.search.held_out_losses import HeldOutLosses
from raysparse.search.quality import NEXT_ITEMS
from raysparse.search.relaxation import ChoiceLoss, DifferentiableConfig, Found, WeightStep, relax
from raysparse.search.sasrec_space import AXES, SASRecSpace
from raysparse.search.sequence_cache import SequenceCache
from raysparse.search.sequence_scoring import SequenceScorer
from raysparse.train.ranking_summary import ranking_means
from raysparse.train.run_folder import RunFolder
from raysparse.train.summary import DENSE


class SequenceSearch:
    """What is particular to sequences; a `SearchKind`."""

    quality = NEXT_ITEMS

    def __init__(self, job: SearchJob, dataset: Dataset) -> None:
        """ConfigError where the data set is not of sequences, or is a stream of days."""
        assert isinstance(job.space, SASRecSpaceConfig)
        if dataset.schema.task != "next_item":
            raise ConfigError(
                f"space.kind: found sasrec, but {dataset.path} is rows with a label; allowed for such: ctr"
            )
        self.job = job
        self._config = job.space
        self._dataset = dataset
        self.space = SASRecSpace(job.space, dataset.schema)
        self._days = select_days(dataset, job.data.first_day, job.data.last_day, job.data.epochs)
        self._check_opening()

    @property
    def num_days_before_test(self) -> int:
        """Epochs, and the last one that is only scored."""
        return len(self._days) - 1

    @property
    def last_days(self) -> int:
        """All epochs: the best of them counts."""
        return self.num_days_before_test

    def supernet_job(self, folder: RunFolder) -> TrainJob:
        """Return the train job of the shared weights, which ends with its cache."""
        job, supernet = self.job, self.job.supernet
        own = {
            "batch_size": supernet.batch_size or job.data.batch_size,
            "epochs": supernet.epochs or job.data.epochs,
        }
        return run_of(
            job,
            f"{job.name}-{SUPERNET}",
            folder.url(SUPERNET),
            data=job.data.model_copy(update=own),
            model=SASRecSupernetConfig(
                space=self._config,
                distillation=supernet.distillation,
                shared_loss=supernet.loss,
                hold_out_last=isinstance(job.searcher, DifferentiableConfig)
                and job.searcher.learned_from == "held_out",
            ),
            optimizer=supernet.optimizer,
            ranking=job.ranking,
            # The largest network, which is compared, may be at its best before the others have been trained at all.
            warm_up_days=self._epochs_to_open,
            callbacks=(supernet.sandwich, job.early_stop, SequenceCacheConfig(folder=folder.url(CACHE))),
        )

    @property
    def _epoch_steps(self) -> int:
        """Steps of an epoch of the supernet."""
        return ceil(self._days[0].rows / (self.job.supernet.batch_size or self.job.data.batch_size))

    @property
    def _epochs_to_open(self) -> int:
        """Epochs of the supernet of which none has had a step with all axes open."""
        steps = self.job.supernet.sandwich.opening_steps * len(AXES)
        return steps // self._epoch_steps + 1 if steps else 0

    def _check_opening(self) -> None:
        """Refuse shared weights whose training ends before all axes are open: its last networks would be drawn ones."""
        supernet, opening = self.job.supernet, self.job.supernet.sandwich.opening_steps
        steps = (supernet.epochs or self.last_days - 1) * self._epoch_steps
        if opening * len(AXES) >= steps:
            raise ConfigError(
                f"supernet.sandwich.opening_steps: found {opening:,}, so that all {len(AXES)} axes are open after "
                f"{opening * len(AXES):,} steps, and the supernet is trained for {steps:,}. Allowed: "
                f"{(steps - 1) // len(AXES):,} or fewer, or more supernet.epochs"
            )

    def open_cache(self, url: str) -> str:
        """Return the digest of a cache's weights; CheckpointError where it is not whole."""
        return SequenceCache.open(url).manifest.supernet

    def scorer(self, url: str, device: torch.device) -> SequenceScorer:
        """Read a cache and the histories to score with; CheckpointError where it belongs to another search."""
        job = self.supernet_job(RunFolder(self.job.run_folder))
        stream = stream_of(job, self._dataset)
        histories = list(stream.scored_batches(self._days[0]))
        assert isinstance(job.model, SASRecSupernetConfig)
        draws = item_draws(job.model, job.ranking, self._dataset, job.seed)
        return SequenceScorer(SequenceCache.open(url), self.space, job.ranking, draws, histories, device)

    def relaxed(self, url: str) -> list[Found]:
        """Search by gradients, in this process, with what a cache holds."""
        job, searcher = self.supernet_job(RunFolder(self.job.run_folder)), self.job.searcher
        assert isinstance(job.model, SASRecSupernetConfig)
        assert isinstance(searcher, DifferentiableConfig)
        cache, model, seed = SequenceCache.open(url), job.model, self.job.seed
        items, supernet = cache.items(), cache.supernet(torch.device("cpu"), model.shared_loss)
        draws = item_draws(model, job.ranking, self._dataset, seed)

        def read() -> Iterator[Batch]:
            stream = stream_of(job, self._dataset)
            for day in itertools.cycle(self._days[:-2]):
                yield from stream.batches(day)

        def begin() -> tuple[ChoiceLoss, WeightStep]:
            hold_out = searcher.learned_from == "held_out"
            losses = HeldOutLosses(supernet, items, draws, read, searcher.weight_learning_rate, hold_out)
            return losses.choice_loss, losses.weight_step

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return relax(self._config, searcher, seed, begin)

    def train_job(self, entrant: Entrant, folder: RunFolder) -> TrainJob:
        """Return the train job of a finalist or a baseline, for fewer epochs where it inherits."""
        job, contender = self.job, entrant.contender
        start_from, data = None, job.data
        if contender.is_finalist and job.finalists.weights == "inherited":
            start_from = StartFromConfig(run_folder=folder.url(SUPERNET))
            data = data.model_copy(update={"epochs": job.finalists.inherited_days})
        return run_of_entrant(
            job, entrant, data=data, start_from=start_from, ranking=job.ranking, callbacks=(job.early_stop,)
        )

    def scores(self, history: list[Tree]) -> Tree:
        """Return NDCG@10 and HR@10 on the validation part after the best epoch, and with its weights on the test."""
        arms = {line["arm"] for line in history}
        means = ranking_means([line for line in history if line["arm"] == DENSE])
        tests = [line for line in history if line["arm"] == (BEST if BEST in arms else DENSE) and line["day"] == TEST]
        names = (self.quality.name, self.quality.second)
        return {
            **{f"validation_{name}": means.get(name) for name in names},
            **{f"test_{name}": tests[0][name] if tests else None for name in names},
        }

    def facts(self) -> Tree:
        """Return the parts, and the size of the space."""
        return {"validation_days": [VALIDATION], "test_days": [TEST], "size": {"sampled": self.space.size()}}
