"""The job that trains one model day by day."""

from collections.abc import Iterator
from typing import Literal, Self

from pydantic import Field, model_validator

from raysparse.callbacks import (
    ArmConfig,
    CallbackConfig,
    CheckpointConfig,
    EarlyStopConfig,
    FrozenArmConfig,
    SandwichConfig,
    SequenceCacheConfig,
    SparsityConfig,
)
from raysparse.callbacks.early_stop import BEST
from raysparse.config import Config, Fault, refuse
from raysparse.data.sources import PrepareConfig
from raysparse.data.stream import StreamConfig
from raysparse.models import ModelConfig, SequenceModelConfig
from raysparse.models.dlrm import DLRMConfig
from raysparse.models.nasrec.choice import NASRecConfig
from raysparse.models.sasrec.config import SampledSoftmaxConfig, SASRecConfig
from raysparse.models.sasrec.supernet import SASRecSupernetConfig
from raysparse.sharding.optimizer import DenseOptimizerConfig, RowWiseAdagradConfig, SparseOptimizerConfig
from raysparse.sharding.plan import ShardingConfig
from raysparse.train.ranking import RankingConfig
from raysparse.train.schedule import ScheduleConfig

_OF_SUPERNETS = (
    ("nasrec_supernet", "path_sampling", "feature_cache"),
    ("sasrec_supernet", "sandwich", "sequence_cache"),
)
"""The kind of a supernet, of the callback that it needs, and of the one that keeps what trials read."""


class DataConfig(StreamConfig):
    """The data set and how it is read."""

    path: str = Field(min_length=1)
    """Folder or fsspec URL of a data set made by `raysparse prepare`; relative to where the command runs."""
    prepare: PrepareConfig | None = None
    """How to make the data set where `path` holds none; null: it has to be there."""
    first_day: str | None = None
    """First day of the stream, by name; null: the first there is."""
    last_day: str | None = None
    """Last day of the stream, by name; null: the last there is."""
    epochs: int | None = Field(default=None, ge=1, le=999)
    """Of a data set that leaves out each user's last events: how often the rest is learned at most."""
    cut: Literal["last", "drawn"] = "last"
    """With `epochs`: what is learned of a history that is longer than the model reads. `last`, as in SASRec's paper:
    its last items; `drawn`: a piece that is drawn anew for each epoch, so that in time all of it is."""

    def cut_faults(self) -> Iterator[Fault]:
        """Yield what is wrong with `cut`; its key is that of the data."""
        if self.cut == "drawn" and self.epochs is None:
            yield ("data", "cut"), self.cut, "last without data.epochs: over days all of a history is learned"


class OptimizerConfig(Config):
    """How weights are learned."""

    sparse: SparseOptimizerConfig = RowWiseAdagradConfig()
    """Optimizer of the tables."""
    dense: DenseOptimizerConfig = DenseOptimizerConfig()
    """Optimizer of everything else."""
    schedule: ScheduleConfig = ScheduleConfig()
    """Factor on the learning rates of both."""

    def with_dense_rate(self, learning_rate: float) -> "OptimizerConfig":
        """Return the same with another learning rate of everything but the tables."""
        return self.model_copy(update={"dense": self.dense.model_copy(update={"learning_rate": learning_rate})})


class ScalingConfig(Config):
    """What the run takes of the cluster, and how it computes there."""

    num_workers: int = Field(default=1, ge=1)
    """Ranks. On one machine without GPUs, one worker with all threads is the fastest."""
    threads_per_worker: int = Field(default=1, ge=1)
    """CPU cores that a worker reserves and computes with."""
    matmul_precision: Literal["highest", "high", "medium"] = "highest"
    """Of products of float32 matrices in training, as `torch.set_float32_matmul_precision` has it: all digits; on GPUs
    those of TF32; those of bfloat16, on GPUs and on CPUs with AMX. On an AMD EPYC with AVX-512 `medium` keeps all
    digits and only takes oneDNN's products in the place of MKL's, which are 2.5 times as fast there."""
    use_gpu: bool = False
    """Whether each worker takes a GPU; they then talk over NCCL instead of gloo."""
    max_restarts: int = Field(default=3, ge=0)
    """Restarts from the last checkpoint after a worker or its machine died, before the run fails."""


class StartFromConfig(Config):
    """First weights out of another run's last checkpoint: of the same model, or of a supernet that has it."""

    run_folder: str = Field(min_length=1)
    """Folder or fsspec URL of the other run."""
    drawn: NASRecConfig | None = None
    """Of a supernet: the network as it was drawn, since the places of its blocks decide which of the shared weights
    they take; null: as `model` has it."""


class TrainJob(Config):
    """A run that trains one model day by day."""

    kind: Literal["train"]
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run, shown in its report."""
    run_folder: str = Field(min_length=1)
    """Folder or fsspec URL that receives everything the run leaves; on a cluster, one that all machines reach."""
    seed: int = Field(default=1, ge=0, lt=2**31)
    """Draws the first weights and the order of the rows."""
    warm_up_days: int = Field(default=0, ge=0)
    """First days that are marked as warm-up in the history and left out of the means."""
    data: DataConfig
    model: ModelConfig = DLRMConfig()
    start_from: StartFromConfig | None = None
    """Where the first weights come from; null: they are drawn."""
    optimizer: OptimizerConfig = OptimizerConfig()
    sharding: ShardingConfig = ShardingConfig()
    scaling: ScalingConfig = ScalingConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    ranking: RankingConfig = RankingConfig()
    """How a model of sequences is scored."""
    callbacks: tuple[CallbackConfig, ...] = ()
    """Further callbacks, in the order in which they are called."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        faults = (
            *self._arm_faults(),
            *self._repeated_callbacks(),
            *self._supernet_faults(),
            *self._cut_faults(),
            *self._sequence_faults(),
        )
        refuse(self, faults)
        return self

    def _arm_faults(self) -> Iterator[Fault]:
        stops = any(isinstance(callback, EarlyStopConfig) for callback in self.callbacks)
        taken = {"trained", BEST} if stops else {"trained"}
        for number, callback in enumerate(self.callbacks):
            if isinstance(callback, ArmConfig):
                if callback.name in taken:
                    allowed = f"a name of its own, as each arm has; {', '.join(sorted(taken))} are taken"
                    yield ("callbacks", number, "name"), callback.name, allowed
                taken.add(callback.name)

    def _repeated_callbacks(self) -> Iterator[Fault]:
        single = {"row_pruning", "early_stop", *(kind for kinds in _OF_SUPERNETS for kind in kinds[1:])}
        kinds = [callback.kind for callback in self.callbacks]
        for number, kind in enumerate(kinds):
            if kind in single and kind in kinds[:number]:
                yield (
                    ("callbacks", number, "kind"),
                    kind,
                    "another kind, since there is one callback of this kind already",
                )

    def _supernet_faults(self) -> Iterator[Fault]:
        kind = self.model.kind
        for supernet, sampling, caching in _OF_SUPERNETS:
            if kind == supernet and all(callback.kind != sampling for callback in self.callbacks):
                yield ("model", "kind"), kind, f"only with a {sampling} in callbacks, which draws what each step trains"
            for number, callback in enumerate(self.callbacks):
                if kind != supernet and callback.kind in (sampling, caching):
                    place = ("callbacks", number, "kind")
                    yield place, callback.kind, f"only with model.kind {supernet}, found {kind}"

    def _cut_faults(self) -> Iterator[Fault]:
        yield from self.data.cut_faults()
        if isinstance(self.model, SASRecSupernetConfig) and self.model.hold_out_last and self.data.cut == "drawn":
            allowed = "last with model.hold_out_last: a drawn piece may end before what is held out"
            yield ("data", "cut"), self.data.cut, allowed

    def _sequence_faults(self) -> Iterator[Fault]:
        kind, of_sequences = self.model.kind, isinstance(self.model, SequenceModelConfig)
        if not of_sequences:
            if self.data.epochs is not None:
                yield ("data", "epochs"), self.data.epochs, f"only with model.kind sasrec, found {kind}"
            for key, value in self.ranking.model_dump(exclude_defaults=True).items():
                yield ("ranking", key), value, f"only with model.kind sasrec, found {kind}"
        elif self.data.epochs is None:
            yield from self._popular_faults()
        for number, callback in enumerate(self.callbacks):
            place = ("callbacks", number, "kind")
            if isinstance(callback, EarlyStopConfig):
                if self.data.epochs is None:
                    yield place, callback.kind, "only with data.epochs, which are what is stopped"
            elif of_sequences and isinstance(callback, SparsityConfig):
                yield from self._pruning_faults(number, callback)
            elif of_sequences and not isinstance(callback, FrozenArmConfig | SandwichConfig | SequenceCacheConfig):
                yield place, callback.kind, f"early_stop, frozen_arm or sparsity with model.kind {kind}"

    def _popular_faults(self) -> Iterator[Fault]:
        why = "on a stream of days, without data.epochs: items are counted to its end, so that popular knows the future"
        model = self.model
        if isinstance(model, SequenceModelConfig):
            place = ("model", "loss") if isinstance(model, SASRecConfig) else ("model", "space", "loss")
            if isinstance(model, SASRecSupernetConfig) and model.shared_loss is not None:
                place = ("model", "shared_loss")
            if isinstance(model.loss, SampledSoftmaxConfig) and model.loss.negatives == "popular":
                yield (*place, "negatives"), "popular", f"uniform {why}"
        if "popular" in self.ranking.sampled:
            yield ("ranking", "sampled"), self.ranking.sampled, f"none or uniform {why}"

    def _pruning_faults(self, number: int, callback: SparsityConfig) -> Iterator[Fault]:
        place = ("callbacks", number)
        if not isinstance(self.model, SASRecConfig):
            yield (*place, "kind"), callback.kind, f"only with model.kind sasrec, found {self.model.kind}"
        elif self.model.gate != "none":
            yield ("model", "gate"), self.model.gate, "none with a callback of kind sparsity"
        if self.data.epochs is not None:
            yield (*place, "kind"), callback.kind, "only on a stream of days, without data.epochs"
        if callback.teacher:
            yield (*place, "teacher"), callback.teacher, "0 with model.kind sasrec"
        if callback.refresh.kind == "in_place":
            yield (*place, "refresh", "kind"), "in_place", "never, every or evidence with model.kind sasrec"
