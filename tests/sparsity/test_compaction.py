import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from raysparse.models.groups import groups_of
from raysparse.sparsity.compaction import compact, compact_tensor, kept_indices
from raysparse.sparsity.layout import widths_of
from raysparse.sparsity.pruner import mask_open, write_masks
from tests.sparsity.heads import CASES, batch_of, head_layout, random_masks


@settings(max_examples=40)
@given(case=st.sampled_from(sorted(CASES)), seed=st.integers(0, 10_000))
def test_a_compacted_head_computes_what_the_masked_one_did(case: str, seed: int):
    head, layout = head_layout(case)
    masks = random_masks(layout, seed)
    mask_open(head)
    write_masks(head, masks)
    small = compact(head, masks)
    assert type(small) is type(head)
    assert {name: place.num_groups for name, place in groups_of(small).items()} == widths_of(masks)
    assert all(place.mask is None for place in groups_of(small).values())
    dense, pooled, _ = batch_of(*CASES[case])
    torch.testing.assert_close(small(dense, pooled), head(dense, pooled), rtol=1e-5, atol=1e-6)
    dense, pooled, _ = batch_of(*CASES[case], dtype=torch.double)
    torch.testing.assert_close(small.double()(dense, pooled), head.double()(dense, pooled), rtol=1e-12, atol=1e-12)


@settings(max_examples=40)
@given(case=st.sampled_from(sorted(CASES)), seed=st.integers(0, 10_000))
def test_a_compacted_head_can_be_masked_and_compacted_again(case: str, seed: int):
    head, layout = head_layout(case)
    first = compact(head, random_masks(layout, seed))
    places = groups_of(first)
    generator = torch.Generator().manual_seed(seed + 1)
    masks = {name: torch.rand(place.num_groups, generator=generator) < 0.5 for name, place in places.items()}
    for name, place in places.items():
        masks[name][0] = True
        place.set_mask(masks[name].float())
    dense, pooled, _ = batch_of(*CASES[case])
    second = compact(first, masks)
    torch.testing.assert_close(second(dense, pooled), first(dense, pooled), rtol=1e-5, atol=1e-6)
    assert {name: place.num_groups for name, place in groups_of(second).items()} == widths_of(masks)


@pytest.mark.parametrize("case", CASES)
def test_compaction_leaves_the_head_alone_and_shares_nothing_with_it(case: str):
    head, layout = head_layout(case)
    before = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    small = compact(head, random_masks(layout, 2))
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.fill_(7.0)
    for name, tensor in head.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    assert {name: place.num_groups for name, place in groups_of(head).items()} == dict(layout.sizes)
    assert all(parameter.requires_grad for parameter in small.parameters())


def test_a_place_without_a_mask_stays_whole():
    head, layout = head_layout("dlrm")
    small = compact(head, {"top.0.2": torch.arange(layout.sizes["top.0.2"]) < 3})
    widths = {name: place.num_groups for name, place in groups_of(small).items()}
    assert widths == {**layout.sizes, "top.0.2": 3}


def test_rows_and_columns_follow_producer_and_consumer():
    head, layout = head_layout("dcn")
    masks = {name: torch.ones(size, dtype=torch.bool) for name, size in layout.sizes.items()}
    masks["fields"][1] = False
    masks["deep.2"][[0, 4]] = False
    kept = kept_indices(head, masks)
    rows, columns = kept["deep.0.weight"]
    assert rows is not None
    assert columns is not None
    assert rows.tolist() == [1, 2, 3, 5, 6, 7]
    # 3 dense inputs, field 0, and no columns 7 to 10, which are field 1's.
    assert columns.tolist() == [*range(7), *range(11, 19)]
    assert kept["deep.0.bias"][0] is rows
    assert kept["logit.weight"] == (None, None)
    assert kept["deep.3.weight"][1] is not None


@pytest.mark.parametrize("case", CASES)
def test_a_tensor_like_a_parameter_is_compacted_as_the_parameter_was(case: str):
    head, layout = head_layout(case)
    masks = random_masks(layout, 4)
    small = compact(head, masks)
    kept = kept_indices(head, masks)
    linears = [name for name, module in head.named_modules() if isinstance(module, nn.Linear)]
    assert {name.rpartition(".")[0] for name in kept} == set(linears)
    for name, indices in kept.items():
        torch.testing.assert_close(
            compact_tensor(head.get_parameter(name).detach(), indices), small.get_parameter(name)
        )
