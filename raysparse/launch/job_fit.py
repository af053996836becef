"""Whether a train job fits its data set, found out on the driver before workers start."""

from collections.abc import Iterator

from raysparse.callbacks import SparsityConfig
from raysparse.data.dataset import Dataset
from raysparse.data.schema import Schema
from raysparse.data.selection import select_days
from raysparse.errors import ConfigError
from raysparse.job import TrainJob
from raysparse.launch.data import Messages
from raysparse.models.sasrec.config import SASRecConfig


def check_fit(job: TrainJob, dataset: Dataset, display: Messages) -> None:
    """Refuse what cannot run on a data set, and say what of the job does nothing there; driver.

    ConfigError names the key and what is possible: tables that are not there, budgets that the model does not allow,
    first weights of another model.
    """
    _check_tables(job, dataset.schema)
    # Both import torchrec, which takes 2 s.
    if job.callbacks:
        from raysparse.callbacks.budgets import check_budgets
        from raysparse.models import build_model

        check_budgets(job.callbacks, build_model(job.model, dataset.schema, job.seed), dataset.schema)
    if job.start_from is not None:
        from raysparse.launch.first_weights import check_source

        check_source(job, dataset.schema, display.message)
    data = job.data
    num_days = len(select_days(dataset, data.first_day, data.last_day, data.epochs))
    for text in _without_effect(job, dataset, num_days):
        display.message(text)


def _check_tables(job: TrainJob, schema: Schema) -> None:
    tables = list(dict.fromkeys(feature.table_name for feature in schema.ids))
    unknown = [name for name in job.sharding.tables if name not in tables]
    if unknown:
        raise ConfigError(f"sharding.tables: found {', '.join(unknown)}; the data set's tables are {', '.join(tables)}")


def _without_effect(job: TrainJob, dataset: Dataset, num_days: int) -> Iterator[str]:
    """Say what waits for days that do not come, or for items that were left out."""
    kept = dataset.manifest.source.get("max_history")
    if isinstance(job.model, SASRecConfig) and job.data.epochs is None and kept and job.model.max_length > kept:
        text = f"{job.model.max_length} items are read of a history, of which the data set keeps {kept}"
        yield f"model.max_length: {text} and the day's own; prepare it with a larger max_history"
    if job.data.epochs is not None and job.warm_up_days > job.data.epochs:
        text = f"all {job.data.epochs} epochs are warm-up, so that no validation counts"
        yield f"warm_up_days: {text}"
    elif job.data.epochs is None and job.warm_up_days >= num_days:
        yield f"warm_up_days: all {num_days} days are warm-up, so that the summary has no means"
    for number, callback in enumerate(job.callbacks):
        for key in ("after_days", "first_day"):
            begins = getattr(callback, key, 0)
            if begins >= num_days:
                text = f"{callback.kind} begins after {begins} days, and the run has {num_days}: it does nothing"
                yield f"callbacks.{number}.{key}: {text}"
        if isinstance(callback, SparsityConfig):
            begins, length = callback.first_day, callback.window_days
            if begins < num_days < begins + length:
                text = f"a window of {length} days after {begins} does not fit into {num_days}: it does nothing"
                yield f"callbacks.{number}.window_days: {text}"
