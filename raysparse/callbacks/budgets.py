"""Refuses budgets that cannot be met, before anything is trained."""

from collections.abc import Sequence

from raysparse.callbacks import CallbackConfig, MaskAgeConfig, SmallDenseConfig, SparsityConfig
from raysparse.cost.record import cost_of
from raysparse.data.schema import Schema
from raysparse.errors import ConfigError
from raysparse.models import AnyRecommender
from raysparse.sparsity.greedy import GreedyConfig
from raysparse.sparsity.layout import Layout
from raysparse.sparsity.projection import uniform_widths


def check_budgets(callbacks: Sequence[CallbackConfig], model: AnyRecommender, schema: Schema) -> None:
    """Refuse what the model's layers do not allow; driver.

    Raises ConfigError, naming the key and what is possible, where the floors need more than a budget, or where a
    share is given to a layer that is not there.
    """
    macs = cost_of(model, schema).macs
    for number, config in enumerate(callbacks):
        if isinstance(config, MaskAgeConfig | SmallDenseConfig | SparsityConfig):
            layout = config.widths.layout(model.head, macs)
            key = f"callbacks.{number}.budget"
            budget = layout.budget_macs(config.budget, key)
            if isinstance(config, SmallDenseConfig):
                _check_narrow(layout, config.budget, budget, key)
            if not isinstance(config, SmallDenseConfig) and isinstance(config.pruner, GreedyConfig):
                _check_shares(config.pruner, layout, f"callbacks.{number}.pruner.shares")


def _check_narrow(layout: Layout, share: float, budget: int, key: str) -> None:
    least = layout.macs(uniform_widths(layout, budget, prune_inputs=False))
    if least > budget:
        raise ConfigError(
            f"{key}: found {share}, which is {budget:,} of the dense head's {layout.dense_macs:,} multiply-adds; with "
            f"all its inputs and every other layer at its floor small_dense takes {least:,}, so that at least "
            f"{least / layout.dense_macs:.4f} is possible. Raise the budget or lower the floor"
        )


def _check_shares(pruner: GreedyConfig, layout: Layout, key: str) -> None:
    unknown = sorted(set(pruner.shares) - set(layout.sizes))
    if unknown:
        raise ConfigError(
            f"{key}: found {', '.join(unknown)}, which this model does not have; its places are "
            + ", ".join(f"{place} ({size} groups)" for place, size in layout.sizes.items())
        )
