import re
from random import Random
from xml.etree import ElementTree

import pytest

from raysparse.models.nasrec.canonical import canonical, dense_reads, sparse_reads, uses_of
from raysparse.models.nasrec.choice import BlockChoice, NASRecConfig
from raysparse.report.network_drawing import DENSE_COLOUR, SPARSE_COLOUR, draw_network
from tests.report.searches import space_of


def titles_of(svg: str) -> list[str]:
    return re.findall(r"<title>(.*?)</title>", svg)


def texts_of(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>(.*?)</text>", svg)


def network(*blocks: BlockChoice, **given: object) -> NASRecConfig:
    return NASRecConfig.model_validate({"blocks": blocks, **given})


def block(**given: object) -> BlockChoice:
    return BlockChoice.model_validate({"dense_width": 64, "num_tokens": 16, **given})


@pytest.mark.parametrize("seed", range(20))
def test_each_live_connection_is_drawn_once_and_no_dead_one(seed: int):
    choice = canonical(space_of("wide").sample(Random(seed)))
    expected: list[str] = []
    for number, (each, use) in enumerate(zip(choice.blocks, uses_of(choice), strict=True), start=1):
        for what, reads in (("dense output", dense_reads(each, use)), ("tokens", sparse_reads(each, use))):
            for source in reads:
                name = f"block {source}" if source else "the raw input"
                expected.append(f"block {number} reads the {what} of {name}")
    drawn = [re.sub(r" as its (gate|factor|value)$", "", title) for title in titles_of(draw_network(choice, "t"))]
    assert sorted(title for title in drawn if " reads the " in title and "dot of" not in title) == sorted(expected)


def test_operators_widths_and_tokens_are_written_in_the_blocks():
    choice = network(
        block(dense_op="fc", dense_width=512),
        block(dense_op="dot", sparse_op="attention", num_tokens=48, dense_inputs=(1,), sparse_inputs=(0, 1)),
    )
    texts = texts_of(draw_network(choice, "t"))
    assert {"fc", "width 512", "dot", "width 64", "attention", "48 tokens", "logit", "16 wide"} <= set(texts)
    assert "dot of block 2 reads the tokens" in titles_of(draw_network(choice, "t"))


def test_mergers_are_arrows_within_a_block():
    plain, merged = (network(block(dense_to_sparse=on, fm=on)) for on in (False, True))
    texts = texts_of(draw_network(merged, "t"))
    assert {"FM", "+8", "16 + 8 tokens"} <= set(texts)
    assert not {"FM", "+8", "16 + 8 tokens"} & set(texts_of(draw_network(plain, "t")))


def test_the_inputs_of_gating_have_their_roles():
    gating = block(dense_op="gating", left=1, right=0, sparse_inputs=(1,))
    titles = titles_of(draw_network(network(block(), gating), "t"))
    assert "block 2 reads the dense output of block 1 as its gate" in titles
    assert "block 2 reads the dense output of the raw input as its value" in titles
    cross = gating.model_copy(update={"dense_op": "cross"})
    assert "block 2 reads the dense output of block 1 as its factor" in titles_of(
        draw_network(network(block(), cross), "t")
    )


def test_an_operator_that_nothing_reads_is_grey_and_a_dead_block_is_left_out():
    dense_alone = block(dense_op="gating", dense_width=128)
    dead = block(dense_op="sum", dense_width=256)
    choice = network(dense_alone, dead, block(dense_inputs=(1,), sparse_inputs=(0,)))
    texts = texts_of(draw_network(choice, "t"))
    assert texts.count("not read") == 1
    assert "sum" not in texts
    assert "3" not in texts


def test_narrow_tables_are_told():
    choice = network(block(), field_dims=(4, 16, 8))
    assert "4 to 16 wide" in texts_of(draw_network(choice, "t"))


@pytest.mark.parametrize("seed", range(10))
def test_nothing_leaves_the_drawing_and_no_two_arrows_meet(seed: int):
    svg = draw_network(space_of("full").sample(Random(seed)), '"<t>&')
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == '"<t>&'
    left, top, width, height = map(float, root.attrib["viewBox"].split())
    for element in root.iter():
        x, y = element.get("x"), element.get("y")
        if x is not None and y is not None:
            assert left <= float(x) <= width - float(element.get("width", 0))
            assert top <= float(y) <= height - float(element.get("height", 0))
    for path in re.findall(r' d="([^"]*)"', svg):
        for command, text in re.findall(r"([MLHVQ])([-\d. ]+)", path):
            numbers = [float(number) for number in text.split()]
            xs, ys = {"H": (numbers, []), "V": ([], numbers)}.get(command, (numbers[::2], numbers[1::2]))
            assert all(0 <= x <= width for x in xs)
            assert all(0 <= y <= height for y in ys)
    tips = re.findall(r'L(-?[\d.]+) (-?[\d.]+)Z" fill="(#\w+)"', svg)
    assert len(tips) == len(set(tips))
    assert {colour for *_, colour in tips} == {DENSE_COLOUR, SPARSE_COLOUR}
