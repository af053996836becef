import pytest
import torch
from torch import nn

from raysparse.models.groups import Groups, groups_of, links_of
from tests.sparsity.heads import CASES, batch_of, model_of


def test_open_groups_pass_everything_on():
    columns = torch.randn(3, 6)
    assert Groups(3, block=2)(columns) is columns


def test_a_mask_covers_whole_blocks():
    groups = Groups(3, block=2)
    groups.set_mask(torch.tensor([1.0, 0.0, 1.0]))
    assert groups(torch.ones(1, 6)).tolist() == [[1, 1, 0, 0, 1, 1]]


def test_a_mask_is_set_in_place_and_learns_a_gradient_of_its_own():
    groups = Groups(2)
    groups.set_mask(torch.tensor([1.0, 0.0]))
    mask = groups.mask
    assert mask is not None
    columns = torch.tensor([[2.0, 3.0], [5.0, 7.0]])
    groups(columns).sum().backward()
    assert mask.grad is not None
    # What each group would add: of the masked one, too.
    assert mask.grad.tolist() == [7.0, 10.0]
    groups.set_mask(torch.tensor([0.0, 1.0]))
    assert groups.mask is mask
    assert groups(columns).tolist() == [[0.0, 3.0], [0.0, 7.0]]
    groups.set_mask(None)
    assert groups(columns) is columns


def test_picked_columns_are_taken_before_the_mask():
    groups = Groups(2)
    groups.picked = torch.tensor([0, 3])
    columns = torch.arange(4.0).unsqueeze(0)
    assert groups(columns).tolist() == [[0.0, 3.0]]
    groups.set_mask(torch.tensor([1.0, 0.0]))
    assert groups(columns + 1).tolist() == [[1.0, 0.0]]
    assert "picked" not in groups.state_dict()


def test_printing_tells_sizes_and_state():
    groups = Groups(3, block=2)
    assert repr(groups) == "Groups(3 x 2, open)"
    groups.set_mask(torch.ones(3))
    assert repr(groups) == "Groups(3 x 2, masked)"


@pytest.mark.parametrize("case", CASES)
def test_links_name_the_layers_that_make_and_read_the_groups(case: str):
    head = model_of(case)[0].head
    places = groups_of(head)
    assert places
    read: dict[str, list[range]] = {}
    for name, link in links_of(head).items():
        consumer = head.get_submodule(link.consumer)
        assert isinstance(consumer, nn.Linear)
        width = places[name].num_groups * places[name].block
        columns = range(link.first_column, link.first_column + width)
        assert columns.stop <= consumer.in_features
        for other in read.setdefault(link.consumer, []):
            assert not set(columns) & set(other)
        read[link.consumer].append(columns)
        if link.producer is not None:
            producer = head.get_submodule(link.producer)
            assert isinstance(producer, nn.Linear)
            assert producer.out_features == width


@pytest.mark.parametrize("case", CASES)
def test_a_masked_group_has_no_say_in_the_logit_and_its_columns_no_gradient(case: str):
    config, schema = CASES[case]
    head = model_of(case)[0].head
    dense, pooled, _ = batch_of(config, schema)
    for name, place in groups_of(head).items():
        mask = torch.ones(place.num_groups)
        mask[0] = 0.0
        place.set_mask(mask)
        before = head(dense, pooled)
        before.sum().backward()
        link = links_of(head)[name]
        weight = head.get_parameter(f"{link.consumer}.weight")
        columns = slice(link.first_column, link.first_column + place.block)
        assert weight.grad is not None
        assert not weight.grad[:, columns].any()
        with torch.no_grad():
            weight[:, columns] += 1.0
        torch.testing.assert_close(head(dense, pooled), before)
        place.set_mask(None)
        assert not torch.allclose(head(dense, pooled), before)
        head.zero_grad()
