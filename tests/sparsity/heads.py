"""Heads, batches and a small training loop for the tests of pruning."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from raysparse.cost.record import cost_of
from raysparse.data.schema import DenseFeature, IdFeature, Schema
from raysparse.models import ClickModelConfig, Recommender, build_model
from raysparse.models.autoint import AutoIntConfig
from raysparse.models.dcn import DCNConfig
from raysparse.models.deepfm import DeepFMConfig
from raysparse.models.dlrm import DLRMConfig
from raysparse.models.xdeepfm import XDeepFMConfig
from raysparse.sparsity.layout import Layout, Masks, layout_of, widths_of
from raysparse.sparsity.pruner import mask_open

IDS = tuple(IdFeature(name=name, rows=10) for name in ("a", "b", "c", "d"))
WITH_DENSE = Schema(dense=(DenseFeature(name="x"), DenseFeature(name="y", optional=True)), ids=IDS)
WITHOUT_DENSE = Schema(ids=IDS)

CASES: dict[str, tuple[ClickModelConfig, Schema]] = {
    "dlrm": (DLRMConfig(embedding_dim=4, bottom=(6,), top=(8, 5)), WITH_DENSE),
    "dlrm, no dense": (DLRMConfig(embedding_dim=4, bottom=(6,), top=(8, 5)), WITHOUT_DENSE),
    "dlrm, no hidden": (DLRMConfig(embedding_dim=4, bottom=(), top=()), WITH_DENSE),
    "deepfm": (DeepFMConfig(embedding_dim=4, deep=(8, 5)), WITH_DENSE),
    "deepfm, no dense": (DeepFMConfig(embedding_dim=4, deep=(8,)), WITHOUT_DENSE),
    "deepfm, no hidden": (DeepFMConfig(embedding_dim=4, deep=()), WITH_DENSE),
    "dcn": (DCNConfig(embedding_dim=4, num_cross_layers=2, rank=3, deep=(8, 5)), WITH_DENSE),
    "dcn, full rank": (DCNConfig(embedding_dim=4, num_cross_layers=2, rank=None, deep=(8, 5)), WITH_DENSE),
    "dcn, no dense": (DCNConfig(embedding_dim=4, num_cross_layers=1, rank=3, deep=(8,)), WITHOUT_DENSE),
    "dcn, no hidden": (DCNConfig(embedding_dim=4, num_cross_layers=1, rank=3, deep=()), WITH_DENSE),
    "autoint": (AutoIntConfig(embedding_dim=4, num_layers=2, head_dim=3, deep=(8, 5)), WITH_DENSE),
    "autoint, no dense": (AutoIntConfig(embedding_dim=4, num_layers=1, head_dim=3, deep=(8,)), WITHOUT_DENSE),
    "autoint, no hidden": (AutoIntConfig(embedding_dim=4, num_layers=1, head_dim=3, deep=()), WITH_DENSE),
    "xdeepfm": (XDeepFMConfig(embedding_dim=4, cin=(5, 3), deep=(8, 5)), WITH_DENSE),
    "xdeepfm, no dense": (XDeepFMConfig(embedding_dim=4, cin=(5,), deep=(8,)), WITHOUT_DENSE),
    "xdeepfm, no hidden": (XDeepFMConfig(embedding_dim=4, cin=(5, 3), deep=()), WITH_DENSE),
}

LARGER = DLRMConfig(embedding_dim=8, bottom=(24,), top=(40, 20))
"""Large enough to be pruned to a fifth."""


def model_of(case: str) -> tuple[Recommender, Schema]:
    config, schema = CASES[case]
    return build_model(config, schema, seed=3), schema


def head_layout(
    case: str, least_groups: int = 1, least_share: float = 0.0, multiple_of: int = 1
) -> tuple[nn.Module, Layout]:
    model, schema = model_of(case)
    return model.head, layout_of(model.head, cost_of(model, schema).macs, least_groups, least_share, multiple_of)


def larger(seed: int = 3, least_groups: int = 2) -> tuple[nn.Module, Layout]:
    """A masked head, all open, with its layout."""
    model = build_model(LARGER, WITH_DENSE, seed)
    layout = layout_of(model.head, cost_of(model, WITH_DENSE).macs, least_groups, 0.05)
    mask_open(model.head)
    return model.head, layout


def random_masks(layout: Layout, seed: int) -> Masks:
    """Masks that keep between one group and all of them, at each place another share."""
    generator = torch.Generator().manual_seed(seed)
    masks: Masks = {}
    for place, size in layout.sizes.items():
        width = int(torch.randint(1, size + 1, (1,), generator=generator))
        masks[place] = torch.zeros(size, dtype=torch.bool)
        masks[place][torch.randperm(size, generator=generator)[:width]] = True
    return masks


Batch = tuple[Tensor, Tensor, Tensor]


def batch_of(config: ClickModelConfig, schema: Schema, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
    """Dense features, pooled embeddings and labels of 16 rows."""
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(16, schema.num_dense_inputs, generator=generator, dtype=dtype)
    pooled = torch.randn(16, len(schema.ids), config.embedding_dim, generator=generator, dtype=dtype)
    labels = (dense.sum(1) + pooled[:, 0, 0] + pooled[:, 1, 1] > 0).to(dtype)
    return dense, pooled, labels


def loss_of(head: nn.Module, batch: Batch) -> Tensor:
    dense, pooled, labels = batch
    return nn.functional.binary_cross_entropy_with_logits(head(dense, pooled), labels)


def backward(head: nn.Module, seed: int) -> None:
    """One backward pass of the larger head; gradients start fresh."""
    head.zero_grad(set_to_none=True)
    loss_of(head, batch_of(LARGER, WITH_DENSE, seed)).backward()


def train(head: nn.Module, steps: range, after_step: Callable[[int], object], learning_rate: float = 0.1) -> None:
    """Plain gradient descent of the larger head, on other rows each step; masks are not learned."""
    for step in steps:
        backward(head, seed=step)
        with torch.no_grad():
            for name, parameter in head.named_parameters():
                if not name.endswith("mask") and parameter.grad is not None:
                    parameter.sub_(parameter.grad, alpha=learning_rate)
        after_step(step)


def assert_budget_is_used(layout: Layout, masks: Masks, macs: int) -> None:
    """Within the budget, above the floors and as wide as allowed, and no next width would fit."""
    widths = widths_of(masks)
    room = macs - layout.macs(widths)
    assert room >= 0
    for place, cost in layout.macs_per_group(widths).items():
        assert widths[place] == layout.at_most(place, widths[place]) >= layout.floors[place]
        more = layout.above(place, widths[place]) - widths[place]
        assert more == 0 or more * cost > room, f"{place} has room for {more} more"
