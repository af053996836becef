"""Refuses budgets that cannot be met, before anything is trained."""

from collections.abc import Sequence

from raysparse.callbacks import CallbackConfig, MaskAgeConfig, SmallDenseConfig, SparsityConfig
from raysparse.cost.record import cost_of
from raysparse.data.schema import Schema
from raysparse.models import Recommender
from raysparse.sparsity.layout import layout_of


def check_budgets(callbacks: Sequence[CallbackConfig], model: Recommender, schema: Schema) -> None:
    """Raise ConfigError, naming the key and what is possible, where the floors need more than a budget; driver."""
    macs = cost_of(model, schema).macs
    for number, config in enumerate(callbacks):
        if isinstance(config, MaskAgeConfig | SmallDenseConfig | SparsityConfig):
            layout = layout_of(model.head, macs, config.floor.groups, config.floor.share)
            layout.budget_macs(config.budget, f"callbacks.{number}.budget")
