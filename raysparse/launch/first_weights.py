"""First weights out of another run's last checkpoint. The driver checks, every rank takes its part."""

import dataclasses
import posixpath
from collections.abc import Callable

import torch.distributed as dist

from raysparse.callbacks.early_stop import BEST
from raysparse.config import Config, Tree, parse_yaml
from raysparse.data.schema import Schema
from raysparse.errors import CheckpointError, ConfigError
from raysparse.job import StartFromConfig, TrainJob, check_train_job
from raysparse.models import build_model
from raysparse.models.nasrec.canonical import canonical
from raysparse.models.nasrec.choice import NASRecConfig
from raysparse.models.nasrec.export import export_subnet
from raysparse.models.nasrec.supernet import NASRecSupernet, NASRecSupernetConfig
from raysparse.models.sasrec.config import SASRecConfig
from raysparse.models.sasrec.supernet import SASRecSupernet, SASRecSupernetConfig
from raysparse.models.sasrec.supernet import export_subnet as sasrec_subnet
from raysparse.search.ctr_space import CTRSpace
from raysparse.search.sasrec_space import SASRecSpace
from raysparse.sharding.global_tensor import GlobalTensor, replicated
from raysparse.sharding.optimizer import STATE_NAMES
from raysparse.sharding.weights import ShardedWeights
from raysparse.train.arm import TRAINED
from raysparse.train.checkpoint import CheckpointFolder
from raysparse.train.run_folder import JOB, RunFolder
from raysparse.train.tensor_store import TensorStore

_KEY = "start_from"


def check_source(job: TrainJob, schema: Schema, warn: Callable[[str], None]) -> None:
    """Check that a job's first weights are there and fit its model; driver. `warn` is told of damaged checkpoints.

    ConfigError where they do not fit; CheckpointError where the other run has no whole checkpoint.
    """
    if job.start_from is None:
        return
    source = _source_job(job.start_from)
    checkpoint = _last_checkpoint(job.start_from, warn)
    theirs, ours = source.optimizer.sparse.kind, job.optimizer.sparse.kind
    if theirs != ours:
        raise ConfigError(
            f"optimizer.sparse.kind: found {ours}; allowed: {theirs}, as in {_KEY}.run_folder, whose state goes on"
        )
    if isinstance(source.model, NASRecSupernetConfig):
        drawn = _drawn(job)
        key = "model" if job.start_from.drawn is None else f"{_KEY}.drawn"
        _require_network(CTRSpace(source.model.space, schema), drawn, key)
        if canonical(drawn) != canonical(_own_choice(job)):
            raise ConfigError(f"{_KEY}.drawn: found another network than `model`; allowed: the same, as it was drawn")
    elif isinstance(source.model, SASRecSupernetConfig):
        if not isinstance(job.model, SASRecConfig):
            raise ConfigError(
                f"model.kind: found {job.model.kind}; allowed: sasrec, since a supernet was trained in "
                f"{_KEY}.run_folder"
            )
        _require_network(SASRecSpace(source.model.space, schema), job.model, "model")
    elif source.model != job.model:
        raise ConfigError(
            f"model: found another one than in {_KEY}.run_folder ({job.start_from.run_folder}); allowed: the same, or "
            "a network of a supernet that was trained there"
        )
    if job.start_from.drawn is not None and not isinstance(source.model, NASRecSupernetConfig):
        raise ConfigError(
            f"{_KEY}.drawn: found a network; allowed: null, since in {_KEY}.run_folder a model of kind "
            f"{source.model.kind} was trained, whose weights are not shared by several networks of clicks"
        )
    _require_tables(job, schema, *checkpoint)


def _require_network(space: CTRSpace | SASRecSpace, network: Config, key: str) -> None:
    try:
        space.parse(network.model_dump(mode="json"))
    except ConfigError as error:
        raise ConfigError(f"{key}, in the space of {_KEY}.run_folder: {error}") from None


def _require_tables(job: TrainJob, schema: Schema, checkpoints: CheckpointFolder, name: str) -> None:
    theirs = _source_arm(checkpoints, name)["column_bounds"].keys()
    ours = {table.name for table in build_model(job.model, schema, job.seed).table_configs}
    if theirs != ours:
        raise ConfigError(
            f"{_KEY}.run_folder: found the tables {', '.join(sorted(theirs))} in {checkpoints.url}; allowed: a run on "
            f"data with the tables {', '.join(sorted(ours))}, as in data.path"
        )


def take_first_weights(job: TrainJob, schema: Schema, model: ShardedWeights) -> None:
    """Put another run's weights into a freshly built model, and the sums of its tables' optimizer with them.

    Adam's moments begin anew, as steps are counted anew: its correction would divide by what a mature moment is not.
    They are those of its best epoch where it kept them. All ranks together. Tables may be narrower here: they take the
    first columns.
    """
    assert job.start_from is not None
    checkpoints, name = _shared_checkpoint(job.start_from)
    arm = _source_arm(checkpoints, name)
    store = TensorStore(posixpath.join(checkpoints.url, name))
    saved = store.shapes(f"{arm['name']}/")

    def read(tensors: dict[str, GlobalTensor]) -> None:
        wanted = {key: tensor for key, tensor in tensors.items() if not key.endswith(STATE_NAMES["adam"])}
        store.read({f"{arm['name']}/{key}": _as_wide(tensor, saved.get(key)) for key, tensor in wanted.items()})

    model.load_tables(read, {table: tuple(bounds) for table, bounds in arm["column_bounds"].items()})
    source = _source_job(job.start_from)
    head = build_model(source.model, schema, source.seed).head
    weights = head.state_dict()
    read({f"head/{key}": replicated(tensor) for key, tensor in weights.items()})
    if isinstance(head, NASRecSupernet):
        weights = export_subnet(head.network, _drawn(job)).state_dict()
    elif isinstance(head, SASRecSupernet):
        assert isinstance(job.model, SASRecConfig)
        weights = sasrec_subnet(head.network, job.model).state_dict()
    model.head.load_state_dict(weights)


def _source_arm(checkpoints: CheckpointFolder, name: str) -> Tree:
    """What the checkpoint says of the arm whose weights are taken: the best epoch's where it was kept."""
    arms = {arm["name"]: arm for arm in checkpoints.state(name)["arms"]}
    return arms.get(BEST, arms[TRAINED])


def _as_wide(tensor: GlobalTensor, saved: tuple[tuple[int, ...], object] | None) -> GlobalTensor:
    if saved is None or len(tensor.shape) != 2 or saved[0][0] != tensor.shape[0] or saved[0][1] < tensor.shape[1]:
        return tensor  # what does not fit is named by the store
    return dataclasses.replace(tensor, shape=saved[0])


def _source_job(start_from: StartFromConfig) -> TrainJob:
    folder = RunFolder(start_from.run_folder)
    if not folder.exists(JOB):
        raise ConfigError(f"{_KEY}.run_folder: found {start_from.run_folder}, which is no run; allowed: a train run's")
    return check_train_job(parse_yaml(folder.read(JOB), folder.url(JOB)), folder.url(JOB))


def _shared_checkpoint(start_from: StartFromConfig) -> tuple[CheckpointFolder, str]:
    checkpoints, name = _last_checkpoint(start_from, lambda text: None)  # the driver has told of damaged ones
    shared: list[str] = [name]
    dist.broadcast_object_list(shared)  # the other run may be writing its next one
    return checkpoints, shared[0]


def _last_checkpoint(start_from: StartFromConfig, warn: Callable[[str], None]) -> tuple[CheckpointFolder, str]:
    checkpoints = CheckpointFolder(RunFolder(start_from.run_folder))
    name = checkpoints.latest(warn)
    if name is None:
        raise CheckpointError(f"{_KEY}.run_folder: {start_from.run_folder} holds no whole checkpoint")
    return checkpoints, name


def _own_choice(job: TrainJob) -> NASRecConfig:
    if not isinstance(job.model, NASRecConfig):
        raise ConfigError(
            f"model.kind: found {job.model.kind}; allowed: nasrec, since a supernet was trained in {_KEY}.run_folder"
        )
    return job.model


def _drawn(job: TrainJob) -> NASRecConfig:
    own = _own_choice(job)
    assert job.start_from is not None
    return job.start_from.drawn or own
