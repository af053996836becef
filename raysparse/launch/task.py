"""What a job's ranks read and learn: the stream of days, and the task."""

import torch

from raysparse.callbacks import PathSamplingConfig
from raysparse.data.dataset import Dataset
from raysparse.data.epoch_stream import EpochStream
from raysparse.data.item_counts import read_item_counts
from raysparse.data.stream import DayStream
from raysparse.job import TrainJob
from raysparse.models import SequenceModelConfig
from raysparse.models.nasrec.supernet import NASRecSupernetConfig
from raysparse.models.sasrec.config import SampledSoftmaxConfig
from raysparse.models.sasrec.supernet import SASRecSupernetConfig
from raysparse.train.click import ClickTask, PathsTask
from raysparse.train.item_draws import ItemDraws
from raysparse.train.next_item import ElasticTask, NextItemTask
from raysparse.train.ranking import RankingConfig
from raysparse.train.task import Task


def stream_of(job: TrainJob, dataset: Dataset, rank: int = 0, world_size: int = 1) -> DayStream:
    """Open a rank's share of what the job reads."""
    kind = DayStream if job.data.epochs is None else EpochStream
    return kind(dataset, job.data, job.seed, rank, world_size, job.ranking.max_rows)


def task_of(job: TrainJob, dataset: Dataset, device: torch.device) -> Task:
    """Return what the job's models learn; DataError where items are drawn by counts that the data set has not."""
    if not isinstance(job.model, SequenceModelConfig):
        if isinstance(job.model, NASRecSupernetConfig):
            sampling = next(callback for callback in job.callbacks if isinstance(callback, PathSamplingConfig))
            return PathsTask(device, sampling.distillation)
        return ClickTask(device)
    draws = item_draws(job.model, job.ranking, dataset, job.seed)
    cut = "windows" if job.data.epochs is None else job.data.cut
    if isinstance(job.model, SASRecSupernetConfig):
        return ElasticTask(job.model, job.ranking, draws, cut)
    return NextItemTask(job.model, job.ranking, draws, cut)


def item_draws(model: SequenceModelConfig, ranking: RankingConfig, dataset: Dataset, seed: int) -> ItemDraws:
    """Return what items are drawn from; DataError where they are drawn by counts that the data set has not."""
    loss = model.loss
    by_counts = "popular" in ranking.sampled
    by_counts |= isinstance(loss, SampledSoftmaxConfig) and loss.negatives == "popular"
    num_items = dataset.schema.ids[0].rows - 1
    return ItemDraws(num_items, read_item_counts(dataset) if by_counts else None, seed)
