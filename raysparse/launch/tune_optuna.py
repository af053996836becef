"""The tree-structured Parzen estimator of optuna, through Ray Tune's wrapper."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from raysparse.errors import ConfigError
from raysparse.job.tune import Choices, Domain, IntegerRange, LogUniformRange
from raysparse.launch.tune_values import Values, readable

_METRIC = "metric"


class Optuna:
    """Proposes what an estimator that knows all results so far finds promising; driver.

    A proposal follows from the seed, the trial's number and the results it is given, so that a run which goes on
    proposes what it would have proposed without the interruption. ConfigError where optuna is not installed.
    """

    def __init__(self, space: Mapping[str, Domain], seed: int, num_trials: int) -> None:
        try:
            import optuna  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise ConfigError(
                "searcher.kind: found 'optuna', whose package is not installed; install it with "
                "`pip install 'raysparse[optuna]'`, or use random or grid"
            ) from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.num_trials = num_trials
        self._space = space
        self._seed = seed

    def propose(self, number: int, scores: Sequence[tuple[Values, float]]) -> Values:
        """Return the values of a trial."""
        from ray.tune.search.optuna import OptunaSearch

        # A fresh one knows nothing but what it is told, and has drawn nothing before.
        search = OptunaSearch(
            {key: _distribution(domain) for key, domain in self._space.items()},
            metric=_METRIC,
            mode="min",
            points_to_evaluate=[self._point(values) for values, _ in scores],
            evaluated_rewards=[score for _, score in scores],
            seed=random.Random(f"{self._seed}/{number}").getrandbits(31),
        )
        point = search.suggest(str(number))
        assert point is not None
        return {key: _value(domain, point[key]) for key, domain in self._space.items()}

    def _point(self, values: Values) -> dict[str, Any]:
        return {
            # Optuna's categories are plain values; trees and lists are told by their places.
            key: domain.values.index(values[key]) if isinstance(domain, Choices) else values[key]
            for key, domain in self._space.items()
        }


def _distribution(domain: Domain) -> Any:
    import optuna.distributions as distributions  # pyright: ignore[reportMissingImports]

    if isinstance(domain, Choices):
        return distributions.CategoricalDistribution(tuple(range(len(domain.values))))
    if isinstance(domain, IntegerRange):
        return distributions.IntDistribution(domain.low, domain.high)
    return distributions.FloatDistribution(domain.low, domain.high, log=isinstance(domain, LogUniformRange))


def _value(domain: Domain, drawn: Any) -> Any:
    if isinstance(domain, Choices):
        return domain.values[drawn]
    if isinstance(domain, IntegerRange):
        return int(drawn)
    return readable(domain, drawn)
