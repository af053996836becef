"""Groups of an encoder of sequences: heads, and neurons of the feed-forward networks."""

from typing import Any

import pytest
import torch

from raysparse.cost.encoder import encoder_macs
from raysparse.models.groups import groups_of
from raysparse.models.sasrec.config import SASRecConfig
from raysparse.models.sasrec.encoder import SASRec
from raysparse.sparsity.compaction import compact, compact_tensor, kept_indices
from raysparse.sparsity.criteria import magnitude
from raysparse.sparsity.layout import Masks, layout_of, widths_of
from raysparse.sparsity.pruner import write_masks
from tests.models.sasrec.sequences import LENGTHS, encoder_of, offsets_of, values_of

KINDS: tuple[dict[str, Any], ...] = (
    {"num_heads": 4},
    {"num_heads": 4, "norm": "post"},
    {"num_heads": (2, 4), "head_dim": 8, "ffn_width": (12, 20), "attention": ("linear", "softmax")},
)
VALUES, OFFSETS = values_of(LENGTHS, 16), offsets_of(LENGTHS)

each_kind = pytest.mark.parametrize("keys", KINDS, ids=str)


def masks_of(encoder: SASRec, seed: int) -> Masks:
    generator = torch.Generator().manual_seed(seed)
    masks: Masks = {}
    for name, place in groups_of(encoder).items():
        masks[name] = torch.rand(place.num_groups, generator=generator) < 0.6
        masks[name][0] = True
    return masks


@each_kind
@pytest.mark.parametrize("seed", range(4))
def test_a_compacted_encoder_computes_what_the_masked_one_did(keys: dict[str, Any], seed: int):
    encoder = encoder_of(**keys)
    masks = masks_of(encoder, seed)
    small = compact(encoder, masks)
    write_masks(encoder, masks)
    torch.testing.assert_close(small(VALUES, OFFSETS), encoder(VALUES, OFFSETS), rtol=1e-5, atol=1e-6)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in encoder.parameters())
    small.train()
    small(VALUES, OFFSETS).square().sum().backward()


@each_kind
def test_the_layout_counts_what_a_network_of_these_widths_takes(keys: dict[str, Any]):
    encoder = encoder_of(**keys)
    config = encoder.config
    layout = layout_of(encoder, encoder_macs(config, config.max_length), 1, 0.0)
    assert layout.dense_macs == encoder_macs(config, config.max_length)
    assert layout.other_macs == 0
    widths = widths_of(masks_of(encoder, 1))
    heads = tuple(widths[f"blocks.{layer}.attention.heads"] for layer in range(2))
    neurons = tuple(widths[f"blocks.{layer}.feed_forward.neurons"] for layer in range(2))
    (head_dim,) = set(config.head_dims)
    same = SASRecConfig.model_validate(
        {**config.model_dump(), "num_heads": heads, "head_dim": head_dim, "ffn_width": neurons}
    )
    assert layout.macs(widths) == encoder_macs(same, config.max_length)
    for place, saved in layout.macs_per_group(widths).items():
        assert layout.macs(widths) - layout.macs({**widths, place: widths[place] - 1}) == saved
        assert layout.num_columns(place) == groups_of(encoder)[place].num_groups * groups_of(encoder)[place].block


def test_moments_of_stacked_projections_are_compacted_as_they_are():
    encoder = encoder_of(num_heads=4)
    masks = masks_of(encoder, 2)
    kept, small = kept_indices(encoder, masks), compact(encoder, masks)
    for name, parameter in small.named_parameters():
        if name in kept:
            assert compact_tensor(encoder.get_parameter(name).detach(), kept[name]).equal(parameter)


def test_the_magnitude_of_a_head_is_that_of_all_its_weights():
    encoder = encoder_of(num_heads=4)
    attention = encoder.get_submodule("blocks.0.attention")
    project, out = attention.get_parameter("project.weight"), attention.get_parameter("out.weight")
    expected = [
        (project[:, 4 * head : 4 * head + 4].norm() * out[:, 4 * head : 4 * head + 4].norm()).sqrt()
        for head in range(4)
    ]
    torch.testing.assert_close(magnitude(encoder)["blocks.0.attention.heads"], torch.stack(expected).detach())


@pytest.mark.parametrize("gate", ["paper", "context"])
def test_what_gates_scale_is_no_group(gate: str):
    assert groups_of(encoder_of(gate=gate)) == {}


def test_a_rank_without_items_passes_the_same_groups_as_one_with_items():
    encoder = encoder_of(num_heads=4)
    seen: list[tuple[str, tuple[int, ...]]] = []
    for name, place in groups_of(encoder).items():
        place.observer = lambda columns, name=name: seen.append((name, tuple(columns.shape)))
    encoder(VALUES, OFFSETS)
    with_items, seen[:] = list(seen), []
    encoded = encoder(VALUES[:0], torch.zeros(3, dtype=torch.long))
    assert encoded.shape == (0, 16)
    assert seen == [(name, (0, width)) for name, (_, width) in with_items]
    encoded.sum().backward()
