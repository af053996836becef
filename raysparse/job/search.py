"""The job that searches an architecture: supernet, trials, finalists, and baselines beside them."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from raysparse.callbacks import CheckpointConfig, PathSamplingConfig
from raysparse.config import Config
from raysparse.data.split import SplitConfig
from raysparse.job.train import DataConfig, OptimizerConfig, ScalingConfig
from raysparse.job.tune import ASHAConfig
from raysparse.models import HandMadeConfig
from raysparse.models.nasrec.menu import CTRSpaceConfig
from raysparse.search.population import RegularizedEvolutionConfig, SearcherConfig
from raysparse.search.scoring import OBJECTIVES, ScoringConfig, objectives_of
from raysparse.sharding.optimizer import DenseOptimizerConfig
from raysparse.sharding.plan import ShardingConfig


class SupernetConfig(Config):
    """How the shared weights are trained, on the training days."""

    sampling: PathSamplingConfig = PathSamplingConfig()
    """Which path a step trains."""
    batch_size: int | None = Field(default=None, ge=1)
    """Rows of a step, over all workers; null: `data.batch_size`. A step trains one path, so that on a short stream more
    steps of fewer rows see more paths."""
    optimizer: OptimizerConfig = OptimizerConfig(dense=DenseOptimizerConfig(kind="adagrad", learning_rate=0.05))
    """Its optimizers and schedule."""


class TrialsConfig(Config):
    """What the trials take of the cluster: each actor scores one choice after the other."""

    num_actors: int = Field(default=1, ge=1)
    """Choices that are scored at the same time."""
    threads_per_actor: int = Field(default=1, ge=1)
    """CPU cores that an actor reserves and computes with."""
    gpus_per_actor: float = Field(default=0.0, ge=0.0)
    """GPUs, or a fraction of one, that an actor reserves and computes on."""


class FinalistsConfig(Config):
    """The best choices of the search, each trained alone."""

    count: int = Field(default=5, ge=1)
    """Choices that are trained: the best ones by `rank_by` of different networks."""
    rank_by: Literal["log_loss", "front"] = "log_loss"
    """By their score alone, or the front of log loss and multiply-adds, evenly along it."""
    weights: Literal["drawn", "inherited"] = "drawn"
    """Trained over all days from drawn weights, or for a short time from those that they have in the supernet.
    Baselines are trained over all days in any case."""
    inherited_days: int = Field(default=1, ge=0)
    """Training days, the last ones, that a finalist with inherited weights sees once more."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Optimizers and schedule of finalists and baselines."""
    learning_rates: tuple[Annotated[float, Field(gt=0)], ...] = Field(default=(1e-3,), min_length=1)
    """Dense learning rates; each finalist and baseline is trained with all, and its best by validation counts."""
    num_parallel: int = Field(default=1, ge=1)
    """Train runs at the same time, each of which takes what `scaling` says."""
    asha: ASHAConfig | None = None
    """Stops runs early whose mean log loss over the days so far is behind; null: all run to their end."""

    @model_validator(mode="after")
    def _comparable_days(self) -> Self:
        if self.asha is not None and self.weights == "inherited":
            raise ValueError(
                "asha null where weights is inherited: it compares means over days, and inherited runs have other days"
            )
        return self


class SearchJob(Config):
    """A search of a space for the networks of a data set."""

    kind: Literal["search"]
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the search, shown in its report."""
    run_folder: str = Field(min_length=1)
    """Folder that receives everything the search leaves; on a cluster, one that all machines reach."""
    seed: int = Field(default=1, ge=0, lt=2**31)
    """Draws weights, the order of rows, paths and proposals."""
    data: DataConfig
    split: SplitConfig = SplitConfig()
    space: CTRSpaceConfig = CTRSpaceConfig()
    supernet: SupernetConfig = SupernetConfig()
    scoring: ScoringConfig = ScoringConfig()
    searcher: SearcherConfig = RegularizedEvolutionConfig()
    trials: TrialsConfig = TrialsConfig()
    finalists: FinalistsConfig = FinalistsConfig()
    baselines: tuple[HandMadeConfig, ...] = ()
    """Models that finalists are compared with, trained as they are."""
    sharding: ShardingConfig = ShardingConfig()
    scaling: ScalingConfig = ScalingConfig()
    """Of each Train run: the supernet, a finalist, a baseline."""
    checkpoint: CheckpointConfig = CheckpointConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        theirs, ours = self.supernet.optimizer.sparse.kind, self.finalists.optimizer.sparse.kind
        if self.finalists.weights == "inherited" and theirs != ours:
            raise ValueError(
                f"finalists.optimizer.sparse.kind {theirs} where finalists.weights is inherited, as in "
                f"supernet.optimizer.sparse, whose state goes on; found {ours}"
            )
        unknown = sorted(set(objectives_of(self.searcher)) - set(OBJECTIVES))
        if unknown:
            raise ValueError(f"objectives of the searcher among {', '.join(OBJECTIVES)}; found {', '.join(unknown)}")
        return self
