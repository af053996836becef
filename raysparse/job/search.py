"""The job that searches an architecture: supernet, trials, finalists, and baselines beside them."""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from raysparse.callbacks import CheckpointConfig, EarlyStopConfig, PathSamplingConfig, SandwichConfig
from raysparse.config import Config, Fault, refuse
from raysparse.data.split import SplitConfig
from raysparse.job.train import DataConfig, OptimizerConfig, ScalingConfig
from raysparse.job.tune import ASHAConfig
from raysparse.models import HandMadeConfig
from raysparse.models.nasrec.menu import CTRSpaceConfig
from raysparse.models.sasrec.config import SASRecConfig, SoftmaxConfig
from raysparse.models.sasrec.menu import SASRecSpaceConfig
from raysparse.search import scoring, sequence_scoring
from raysparse.search.finalists import RankBy
from raysparse.search.population import NSGA2Config, RandomSearchConfig, RegularizedEvolutionConfig
from raysparse.search.pressure import DualPressureConfig, PressureConfig
from raysparse.search.quality import CLICKS, NEXT_ITEMS, Quality
from raysparse.search.relaxation import DifferentiableConfig
from raysparse.search.scoring import ScoringConfig
from raysparse.sharding.optimizer import DenseOptimizerConfig
from raysparse.sharding.plan import ShardingConfig
from raysparse.train.ranking import RankingConfig

SpaceConfig = Annotated[CTRSpaceConfig | SASRecSpaceConfig, Field(discriminator="kind")]
AnySearcherConfig = Annotated[
    RandomSearchConfig | RegularizedEvolutionConfig | NSGA2Config | DifferentiableConfig, Field(discriminator="kind")
]
BaselineConfig = Annotated[HandMadeConfig | SASRecConfig, Field(discriminator="kind")]

_OF_CLICKS = (("split",), ("scoring",), ("supernet", "sampling"))
_OF_SEQUENCES = (
    ("ranking",),
    ("early_stop",),
    ("supernet", "sandwich"),
    ("supernet", "distillation"),
    ("supernet", "loss"),
    ("supernet", "epochs"),
)
"""Keys that a search of the other kind does not read."""


class SupernetConfig(Config):
    """How the shared weights are trained, on the training days or for some epochs."""

    sampling: PathSamplingConfig = PathSamplingConfig()
    """Of NASRec's networks: which path a step trains."""
    sandwich: SandwichConfig = SandwichConfig()
    """Of SASRec's: which networks a step trains."""
    distillation: float = Field(default=1.0, ge=0)
    """Of SASRec's: how much the smaller networks of a step learn from what the largest one predicts."""
    loss: SoftmaxConfig | None = None
    """Of SASRec's: what the shared weights learn by; null: `space.loss`, as finalists do. A step learns several
    networks, so that a full softmax takes as many times as long; a sampled one is there for that."""
    epochs: int | None = Field(default=None, ge=1, le=999)
    """Of SASRec's: epochs at most; null: `data.epochs`."""
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
    rank_by: RankBy = "score"
    """By their score alone, evenly along the front of score and multiply-adds, or the best within each budget."""
    budgets: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Multiply-adds, at most, of the choices that `rank_by: budgets` takes, one for each; `count` does not matter."""
    weights: Literal["drawn", "inherited"] = "drawn"
    """Trained over all days from drawn weights, or for a short time from those that they have in the supernet.
    Baselines are trained over all days in any case."""
    inherited_days: int = Field(default=1, ge=0)
    """Training days, the last ones, or epochs, of which there is one at least, that a finalist with inherited weights
    sees once more."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Optimizers and schedule of finalists and baselines."""
    learning_rates: tuple[Annotated[float, Field(gt=0)], ...] = Field(default=(1e-3,), min_length=1)
    """Dense learning rates; each finalist and baseline is trained with all, and its best by validation counts."""
    num_parallel: int = Field(default=1, ge=1)
    """Train runs at the same time, each of which takes what `scaling` says."""
    asha: ASHAConfig | None = None
    """Stops finalists' runs early that are behind other finalists: by their mean log loss over the days so far, or by
    their best NDCG@10 of the epochs so far; null: all run to their end, as baselines always do."""

    @model_validator(mode="after")
    def _budgets_to_rank_by(self) -> Self:
        if (self.rank_by == "budgets") != bool(self.budgets):
            raise ValueError("rank_by budgets with the budgets to keep to, and budgets with rank_by budgets alone")
        return self

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
    space: SpaceConfig = CTRSpaceConfig()
    supernet: SupernetConfig = SupernetConfig()
    scoring: ScoringConfig = ScoringConfig()
    """Of networks for clicks."""
    ranking: RankingConfig = RankingConfig()
    """How networks for sequences are scored, in training and in trials."""
    early_stop: EarlyStopConfig = EarlyStopConfig()
    """When runs of epochs end: the supernet's, a finalist's, a baseline's."""
    searcher: AnySearcherConfig = RegularizedEvolutionConfig()
    trials: TrialsConfig = TrialsConfig()
    finalists: FinalistsConfig = FinalistsConfig()
    baselines: tuple[BaselineConfig, ...] = ()
    """Models that finalists are compared with, trained as they are."""
    sharding: ShardingConfig = ShardingConfig()
    scaling: ScalingConfig = ScalingConfig()
    """Of each Train run: the supernet, a finalist, a baseline."""
    checkpoint: CheckpointConfig = CheckpointConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        refuse(self, self._misfits())
        return self

    def _misfits(self) -> Iterator[Fault]:
        kind = self.space.kind
        yield from self._misfits_of_contenders()
        yield from self._misfits_of_the_searcher()
        yield from self.data.cut_faults()
        if self.of_sequences and self.early_stop.metric != NEXT_ITEMS.name:
            allowed = f"{NEXT_ITEMS.name}, by which a search judges: the weights of the best epoch by it are kept"
            yield ("early_stop", "metric"), self.early_stop.metric, allowed
        if self.of_sequences and self.finalists.weights == "inherited" and not self.finalists.inherited_days:
            yield ("finalists", "inherited_days"), 0, "1 or more epochs with space.kind sasrec"
        if self.of_sequences and self.data.epochs is None:
            yield ("data", "epochs"), None, "how often the train part is learned at most, with space.kind sasrec"
        if not self.of_sequences and self.data.epochs is not None:
            yield ("data", "epochs"), self.data.epochs, f"null with space.kind {kind}"
        other = "ctr" if self.of_sequences else "sasrec"
        for key in _OF_CLICKS if self.of_sequences else _OF_SEQUENCES:
            found = _value(getattr(self, key[0]), key[1:])
            if found != _value(SearchJob.model_fields[key[0]].default, key[1:]):
                shown = found.model_dump() if isinstance(found, Config) else found
                yield key, shown, f"only with space.kind {other}, found {kind}; leave it out"

    def _misfits_of_contenders(self) -> Iterator[Fault]:
        for number, model in enumerate(self.baselines):
            if isinstance(model, SASRecConfig) != self.of_sequences:
                allowed = "sasrec" if self.of_sequences else "a model of clicks"
                yield ("baselines", number, "kind"), model.kind, f"{allowed} with space.kind {self.space.kind}"
            if model in self.baselines[:number]:
                same = self.baselines.index(model)
                yield ("baselines", number), model.model_dump(), f"each model once, and baselines.{same} is the same"
        rates = self.finalists.learning_rates
        if len(set(rates)) < len(rates):
            yield ("finalists", "learning_rates"), rates, "each learning rate once"
        rate, default = self.finalists.optimizer.dense.learning_rate, OptimizerConfig().dense.learning_rate
        if rate != default and rate not in rates:
            allowed = "left out, or one of finalists.learning_rates, which say with which rates each is trained"
            yield ("finalists", "optimizer", "dense", "learning_rate"), rate, allowed
        days = self.finalists.inherited_days
        if self.finalists.weights != "inherited" and days != FinalistsConfig().inherited_days:
            yield ("finalists", "inherited_days"), days, "left out with finalists.weights drawn, which sees all days"
        theirs, ours = self.supernet.optimizer.sparse.kind, self.finalists.optimizer.sparse.kind
        if self.finalists.weights == "inherited" and theirs != ours:
            allowed = f"{theirs} with finalists.weights inherited, as in supernet.optimizer.sparse, whose state goes on"
            yield ("finalists", "optimizer", "sparse", "kind"), ours, allowed

    def _misfits_of_the_searcher(self) -> Iterator[Fault]:
        space, gpus = self.space, self.trials.gpus_per_actor
        unknown = sorted(set(self.objectives) - set(self.known_objectives))
        if unknown:
            key = "objective" if isinstance(self.searcher, RegularizedEvolutionConfig) else "objectives"
            yield ("searcher", key), ", ".join(unknown), f"{', '.join(self.known_objectives)} with this kind of space"
        if isinstance(self.searcher, DifferentiableConfig):
            if not isinstance(space, SASRecSpaceConfig):
                yield ("searcher", "kind"), self.searcher.kind, "random, evolution or nsga2 with space.kind ctr"
                return
            if space.max_macs is not None:
                allowed = "null with searcher.kind differentiable, which searcher.constraint keeps cheap"
                yield ("space", "max_macs"), space.max_macs, allowed
            if self.data.cut == "drawn":
                allowed = "last with searcher.kind differentiable, which learns from the ends of histories"
                yield ("data", "cut"), self.data.cut, allowed
            yield from self._misfits_of_budgets(self.searcher.constraint)
            if len(space.lengths) > 1:
                allowed = "one length with searcher.kind differentiable; evolution or nsga2 choose among several"
                yield ("space", "lengths"), space.lengths, allowed
        elif gpus and "energy_uj" in self.objectives:
            allowed = "0 with the objective energy_uj, whose counter is that of the CPU's package"
            yield ("trials", "gpus_per_actor"), gpus, allowed

    def _misfits_of_budgets(self, constraint: PressureConfig) -> Iterator[Fault]:
        """Networks within the constraint's budgets take nearly as much as those, whatever finalists may take."""
        wanted = self.finalists.budgets
        if isinstance(constraint, DualPressureConfig) and wanted and max(wanted) < min(constraint.budgets):
            allowed = f"one of {min(constraint.budgets):,} or more, as searcher.constraint.budgets has none below"
            yield ("finalists", "budgets"), wanted, allowed

    @property
    def of_sequences(self) -> bool:
        """Whether it searches for models of which item comes next."""
        return isinstance(self.space, SASRecSpaceConfig)

    @property
    def quality(self) -> Quality:
        """By what networks are judged."""
        return NEXT_ITEMS if self.of_sequences else CLICKS

    @property
    def known_objectives(self) -> tuple[str, ...]:
        """What a trial can measure."""
        return sequence_scoring.OBJECTIVES if self.of_sequences else scoring.OBJECTIVES

    @property
    def resolved_searcher(self) -> AnySearcherConfig:
        """The searcher, with the objectives that it makes small."""
        return self.searcher.resolved(self.quality.objective)

    @property
    def objectives(self) -> tuple[str, ...]:
        """What the searcher makes small; none for a random one, which looks at nothing."""
        return self.resolved_searcher.all_objectives


def _value(config: object, names: tuple[str, ...]) -> object:
    return _value(getattr(config, names[0]), names[1:]) if names else config
