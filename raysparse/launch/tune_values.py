"""What the trials of a tune run try: values by dotted key, and the train jobs that they make."""

import itertools
import json
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from raysparse.config import Tree, override
from raysparse.errors import ConfigError
from raysparse.job import TrainJob, TuneJob, check_train_job
from raysparse.job.tune import (
    Choices,
    Domain,
    GridConfig,
    IntegerRange,
    LogUniformRange,
    OptunaConfig,
    UniformRange,
)

Values = dict[str, Any]

_DIGITS = 4
_LABELS = 3


class Proposer(Protocol):
    """Says what each trial tries."""

    num_trials: int

    def propose(self, number: int, scores: Sequence[tuple[Values, float]]) -> Values:
        """Return the values of a trial; `scores` are those of the trials that are done, in the order of their end."""
        ...


class Drawn:
    """Values that are known from the start: independent draws, or all combinations of choices."""

    def __init__(self, values: Sequence[Values]) -> None:
        self.all = values
        self.num_trials = len(values)

    def propose(self, number: int, scores: Sequence[tuple[Values, float]]) -> Values:
        """Return the trial's values, whatever the others came to."""
        return self.all[number]


def build_proposer(job: TuneJob) -> Proposer:
    """Build what the job's searcher asks for; ConfigError where the package of it is missing."""
    if isinstance(job.searcher, OptunaConfig):
        from raysparse.launch.tune_optuna import Optuna

        return Optuna(job.space, job.seed, job.num_trials)
    if isinstance(job.searcher, GridConfig):
        return Drawn(list(_combinations(job.space)))
    return Drawn([draw(job.space, job.seed, number) for number in range(job.num_trials)])


def draw(space: Mapping[str, Domain], seed: int, number: int) -> Values:
    """Draw the values of a trial, which follow from the seed, its number and the key alone."""
    # Seeded by text, `random` gives the same numbers in every version of Python.
    return {key: _at(domain, random.Random(f"{seed}/{number}/{key}").random()) for key, domain in space.items()}


def _at(domain: Domain, share: float) -> Any:
    """The value at a share in [0, 1) of a domain."""
    match domain:
        case Choices():
            return domain.values[int(share * len(domain.values))]
        case IntegerRange():
            return domain.low + int(share * (domain.high - domain.low + 1))
        case LogUniformRange():
            low, high = math.log(domain.low), math.log(domain.high)
            return readable(domain, math.exp(low + share * (high - low)))
        case UniformRange():
            return readable(domain, domain.low + share * (domain.high - domain.low))


def readable(domain: UniformRange | LogUniformRange, value: float) -> float:
    """Round a number to what can be read and pasted, within its range."""
    size = value if isinstance(domain, LogUniformRange) else domain.high - domain.low
    rounded = round(value, _DIGITS - 1 - math.floor(math.log10(size)))
    return min(max(rounded, domain.low), domain.high)


def _combinations(space: Mapping[str, Domain]) -> Iterable[Values]:
    choices = [domain.values for domain in space.values() if isinstance(domain, Choices)]
    return (dict(zip(space, values, strict=True)) for values in itertools.product(*choices))


def as_overrides(values: Values) -> list[str]:
    """Write values as `key=value`, as the command line takes them."""
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]


def train_job(job: TuneJob, number: int, run_folder: str, values: Values, origin: str) -> TrainJob:
    """Lay a trial's values over the job's train job; ConfigError names `origin`, keys and what is allowed."""
    tree: Tree = {**job.job, "kind": "train", "name": f"{job.name}-{number:03d}", "run_folder": run_folder}
    return check_train_job(override(tree, tuple(as_overrides(values)), (TrainJob,)), origin)


def check_values(job: TuneJob, proposer: Proposer) -> list[TrainJob]:
    """Check each train job that is sure or able to come, and return them; ConfigError lists all faults of all.

    These are all that are drawn already, those at both ends of each range, and, where a searcher draws as it goes,
    those with each choice.
    """
    jobs: list[TrainJob] = []
    faults: dict[str, list[str]] = {}
    for label, values in _candidates(job, proposer):
        try:
            jobs.append(train_job(job, 0, job.run_folder, values, "the trial"))
        except ConfigError as error:
            first, *lines = str(error).splitlines()
            for fault in lines or [first]:
                faults.setdefault(fault.strip(), []).append(label)
    if faults:
        lines = "\n".join(f"  {fault} ({_some(labels)})" for fault, labels in faults.items())
        raise ConfigError(f"job and space make train jobs that cannot run:\n{lines}")
    return jobs


def first_values(job: TuneJob) -> Values:
    """Return values that `check_values` has found to make a train job."""
    return _candidates(job, build_proposer(job))[0][1]


def with_all_keys(job: TuneJob, values: Values) -> TuneJob:
    """Return the job with each key of its train job given, those of the space as `values` has them."""
    tree = train_job(job, 0, job.run_folder, values, "the train job").model_dump(mode="json")
    own = {key: value for key, value in tree.items() if key not in ("kind", "name", "run_folder")}
    return job.model_copy(update={"job": own})


def _candidates(job: TuneJob, proposer: Proposer) -> list[tuple[str, Values]]:
    known = proposer.all if isinstance(proposer, Drawn) else ()
    drawn = [(f"trial {number}", values) for number, values in enumerate(known)]
    base = drawn[0][1] if drawn else {key: _extremes(domain)[0] for key, domain in job.space.items()}
    single = [
        (f"space.{key} at {json.dumps(value)}", {**base, key: value})
        for key, domain in job.space.items()
        if not (drawn and isinstance(domain, Choices))
        for value in _extremes(domain)
    ]
    return drawn + single


def _extremes(domain: Domain) -> Sequence[Any]:
    return domain.values if isinstance(domain, Choices) else (domain.low, domain.high)


def _some(labels: Sequence[str]) -> str:
    more = len(labels) - _LABELS
    return ", ".join(labels[:_LABELS]) + (f" and {more} more" if more > 0 else "")
