from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raysparse.models.nasrec.canonical import canonical, canonical_order, text_of, uses_of
from raysparse.models.nasrec.choice import BlockChoice, NASRecConfig
from raysparse.models.nasrec.export import export_subnet
from tests.models.nasrec.draws import draw_choice, draw_network, draw_rows
from tests.models.nasrec.winners import WINNERS

NETWORK = draw_network(seed=1)
ROWS = draw_rows(seed=2)


def block(**fields: object) -> BlockChoice:
    return BlockChoice.model_validate({"dense_width": 8, "num_tokens": 4, **fields})


def network(*blocks: BlockChoice) -> NASRecConfig:
    return NASRecConfig(embedding_dim=4, blocks=blocks)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_a_choice_and_its_canonical_form_give_the_same_logits(seed: int):
    choice = draw_choice(Random(seed))
    alone = export_subnet(NETWORK, choice)
    assert alone.choice == canonical(choice)
    with torch.no_grad():
        torch.testing.assert_close(alone(*ROWS), NETWORK(*ROWS, choice), rtol=1e-9, atol=1e-9)


def test_the_order_of_a_dots_sources_has_no_say():
    """Block 1's and 2's tokens are as many as the dot compresses them to, and change places in the canonical form."""
    choice = network(
        block(dense_op="dot", dense_width=24, fm=True),
        block(dense_op="cross", sparse_op="attention", fm=True),
        block(dense_op="dot", dense_width=32, dense_inputs=(0, 2), sparse_inputs=(1, 2), fm=True),
    )
    assert canonical_order(choice) == (2, 1, 3)
    with torch.no_grad():
        torch.testing.assert_close(export_subnet(NETWORK, choice)(*ROWS), NETWORK(*ROWS, choice), rtol=1e-9, atol=1e-9)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
def test_the_canonical_form_of_a_canonical_form_is_itself(seed: int):
    form = canonical(draw_choice(Random(seed)))
    assert canonical(form) == form
    assert NASRecConfig.model_validate(form.model_dump()) == form
    assert all(use.live for use in uses_of(form))


def renumbered(choice: NASRecConfig, random: Random) -> NASRecConfig:
    """The same network with its blocks in another order, dead blocks between them, and sets in another order."""
    waiting, order = list(range(1, len(choice.blocks))), []
    while waiting:
        ready = [n for n in waiting if not _reads(choice.blocks[n - 1]) & set(waiting)]
        order.append(random.choice(ready))
        waiting.remove(order[-1])
        if random.random() < 0.3:
            order.append(0)
    order.append(len(choice.blocks))
    new = {0: 0} | {old: place for place, old in enumerate(order, start=1) if old}
    blocks = []
    for old in order:
        if old == 0:  # a block that nothing reads
            blocks.append(block(dense_op="gating", left=random.randrange(len(blocks) + 1), num_tokens=6, fm=True))
            continue
        source = choice.blocks[old - 1]
        dense, sparse = ([new[n] for n in inputs] for inputs in (source.dense_inputs, source.sparse_inputs))
        left, right = new[source.left], new[source.right]
        if source.dense_op == "sum" and random.random() < 0.5:
            left, right = right, left
        fields = {
            "dense_inputs": tuple(random.sample(dense, len(dense))),
            "sparse_inputs": tuple(random.sample(sparse, len(sparse))),
            "left": left,
            "right": right,
        }
        blocks.append(source.model_copy(update=fields))
    return choice.model_copy(update={"blocks": tuple(blocks)})


def _reads(source: BlockChoice) -> set[int]:
    return {*source.dense_inputs, *source.sparse_inputs, source.left, source.right}


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32))
def test_the_numbering_of_a_network_does_not_matter(seed: int):
    random = Random(seed)
    choice = draw_choice(random, num_blocks=random.randint(3, 7))
    if random.random() < 0.5:  # make twins likely, whose order only the whole network decides
        few = random.choices(choice.blocks[:2], k=len(choice.blocks) - 2)
        choice = choice.model_copy(update={"blocks": (choice.blocks[0], *few, choice.blocks[-1])})
    assert text_of(canonical(renumbered(choice, random))) == text_of(canonical(choice))


def test_twins_that_are_read_in_different_ways_are_told_apart():
    twin, last = block(), block(dense_op="gating", sparse_inputs=(1, 2), left=1, right=2)
    both = network(twin, twin, last)
    same = network(twin, twin, last.model_copy(update={"right": 1}))
    swapped = network(twin, twin, last.model_copy(update={"left": 2, "right": 1}))
    assert canonical(both) == canonical(swapped)
    assert canonical(both) != canonical(same)


def test_many_twins_are_ordered_at_once():
    # Any of 11! orders would do; a search through them would not end.
    twins = [block() for _ in range(11)]
    choice = network(*twins, block(dense_inputs=(1, 3, 5, 7), sparse_inputs=(2, 4, 6, 8), dense_op="dot"))
    choice = choice.model_copy(update={"blocks": (*choice.blocks, block(dense_inputs=(9, 10, 11, 12)))})
    assert text_of(canonical(choice)).endswith("| dot8(1,2,3,4) efc16(8,9,10,11) | fc8(5,6,7,12) efc4(0)")
    for seed in range(5):
        assert canonical(renumbered(choice, Random(seed))) == canonical(choice)


def test_only_what_is_read_of_a_block_counts():
    first = block(dense_to_sparse=True, fm=True, dense_width=16)
    dense_only = network(first, block(dense_inputs=(0, 1)))
    # Nobody reads the tokens: fm does, so that the operator stays, but what is appended to them goes.
    assert canonical(dense_only).blocks[0] == first.model_copy(update={"dense_to_sparse": False})
    sparse_only = network(first, block(sparse_inputs=(0, 1)))
    assert canonical(sparse_only).blocks[0] == first.model_copy(update={"fm": False})
    neither = network(first.model_copy(update={"dense_to_sparse": False}), block(sparse_inputs=(0, 1)))
    assert canonical(neither).blocks[0] == BlockChoice(dense_width=16, num_tokens=4)
    other_width = network(block(dense_width=24), block(sparse_inputs=(0, 1)))
    assert canonical(neither) == canonical(other_width)


@pytest.mark.parametrize(
    "changes",
    [
        {"dense_op": "dot"},
        {"sparse_op": "attention"},
        {"dense_width": 16},
        {"num_tokens": 6},
        {"dense_inputs": (0,)},
        {"sparse_inputs": (0,)},
        {"dense_to_sparse": True},
        {"fm": True},
    ],
)
def test_whatever_has_a_say_makes_another_network(changes: dict[str, object]):
    last = block(dense_inputs=(1,), sparse_inputs=(0, 1))
    choice = network(block(), last)
    assert canonical(network(block(), last.model_copy(update=changes))) != canonical(choice)
    assert canonical(choice.model_copy(update={"layer_norm": False})) != canonical(choice)
    narrow = choice.model_copy(update={"field_dims": (4, 4)})
    assert canonical(narrow) == canonical(choice)
    assert canonical(narrow.model_copy(update={"embedding_dim": 8})) != canonical(
        choice.model_copy(update={"embedding_dim": 8})
    )


def test_the_published_winner_has_three_dead_blocks():
    choice = WINNERS["criteo-full"].choice
    assert canonical_order(choice) == (2, 1, 3, 7)
    assert text_of(canonical(choice)) == (
        "d16 | dot32(0) efc64(0) | gating128(L0 R0) attention64(0)+ds | dot768(1,2) efc32(0,1,2)+fm | "
        "fc128(0,1,3) attention48(2,3)+fm"
    )
