"""What of a choice is live, and the one choice that all equal networks share. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from raysparse.models.nasrec.choice import BlockChoice, NASRecConfig

IDLE = BlockChoice(dense_width=16, num_tokens=16)
"""Where the fields of an operator that nothing reads are taken from."""


@dataclass(frozen=True)
class Use:
    """What of a block is read, and so has to be computed."""

    dense_read: bool
    """Whether somebody reads the dense output."""
    sparse_read: bool
    """Whether somebody reads the tokens."""
    dense_to_sparse: bool
    """Whether the merger into the tokens is on and read."""
    fm: bool
    """Whether the merger into the dense output is on and read."""

    @property
    def dense_op(self) -> bool:
        """Whether the dense operator runs."""
        return self.dense_read or self.dense_to_sparse

    @property
    def sparse_op(self) -> bool:
        """Whether the sparse operator runs."""
        return self.sparse_read or self.fm

    @property
    def live(self) -> bool:
        """Whether the block has any say in the logit."""
        return self.dense_read or self.sparse_read


@lru_cache(maxsize=4096)
def uses_of(choice: NASRecConfig) -> tuple[Use, ...]:
    """Return what of each block is read, directly or not, by the head behind the last one."""
    num_blocks = len(choice.blocks)
    dense_read, sparse_read = {num_blocks}, {num_blocks}
    uses: list[Use] = []
    for number in range(num_blocks, 0, -1):
        block = choice.blocks[number - 1]
        dense, sparse = number in dense_read, number in sparse_read
        use = Use(dense, sparse, sparse and block.dense_to_sparse, dense and block.fm)
        dense_read.update(dense_reads(block, use))
        sparse_read.update(sparse_reads(block, use))
        uses.append(use)
    return tuple(reversed(uses))


def dense_reads(block: BlockChoice, use: Use) -> tuple[int, ...]:
    """Return the predecessors of which a block reads the dense output."""
    if not use.dense_op:
        return ()
    return block.dense_inputs if block.dense_op in ("fc", "dot") else (block.left, block.right)


def sparse_reads(block: BlockChoice, use: Use) -> tuple[int, ...]:
    """Return the predecessors of which a block reads the tokens."""
    return block.sparse_inputs if use.sparse_op or (use.dense_op and block.dense_op == "dot") else ()


def canonical(choice: NASRecConfig) -> NASRecConfig:
    """Return the choice that all choices of the same network share.

    Blocks that nothing reads are removed and the others renumbered, in the order of `canonical_order`; sets are
    sorted; fields without a say are reset.
    """
    dims = choice.field_dims
    if dims is not None and all(width == choice.embedding_dim for width in dims):
        dims = None
    blocks = _renumbered(_cleaned(choice), canonical_order(choice))
    return choice.model_copy(update={"blocks": tuple(blocks), "field_dims": dims})


def canonical_order(choice: NASRecConfig) -> tuple[int, ...]:
    """Return the live blocks' numbers in the order in which the canonical form has them.

    That order follows from the network alone, not from its numbering: by depth, then by what a block computes from
    what for whom; where that leaves several orders, the one with the smallest description of the whole network.
    """
    cleaned = _cleaned(choice)
    orders = list(_Graph(cleaned).orders())
    if len(orders) == 1:
        return orders[0]
    return min(orders, key=lambda order: [text_of_block(block) for block in _renumbered(cleaned, order)])


def text_of(choice: NASRecConfig) -> str:
    """Return a choice in one line, in the notation in which NASRec's networks are published."""
    head = f"d{choice.embedding_dim}" + (" ln" if choice.layer_norm else "") + (" flat" if choice.flat_tokens else "")
    if choice.field_dims is not None:
        head += f" fields({','.join(map(str, choice.field_dims))})"
    return " | ".join([head, *map(text_of_block, choice.blocks)])


def text_of_block(block: BlockChoice) -> str:
    """Return a block in the published notation: operator, width, inputs, mergers."""
    if block.dense_op in ("fc", "dot"):
        reads = ",".join(map(str, block.dense_inputs))
    else:
        reads = f"L{block.left} R{block.right}"
    mergers = ("+ds" if block.dense_to_sparse else "") + ("+fm" if block.fm else "")
    tokens = ",".join(map(str, block.sparse_inputs))
    return f"{block.dense_op}{block.dense_width}({reads}) {block.sparse_op}{block.num_tokens}({tokens}){mergers}"


def _cleaned(choice: NASRecConfig) -> dict[int, BlockChoice]:
    """The live blocks by number, with the fields that have no say reset."""
    cleaned: dict[int, BlockChoice] = {}
    for number, (block, use) in enumerate(zip(choice.blocks, uses_of(choice), strict=True), start=1):
        if not use.live:
            continue
        fields: dict[str, object] = {"fm": use.fm, "dense_to_sparse": use.dense_to_sparse}
        if not use.dense_op:
            fields |= {"dense_op": IDLE.dense_op, "dense_width": IDLE.dense_width, "dense_inputs": IDLE.dense_inputs}
        if not use.dense_op or block.dense_op in ("fc", "dot"):
            fields |= {"left": 0, "right": 0}
        else:
            fields |= {"dense_inputs": IDLE.dense_inputs}
        if not use.sparse_op:
            fields |= {"sparse_op": IDLE.sparse_op, "num_tokens": IDLE.num_tokens}
        if not sparse_reads(block, use):
            fields |= {"sparse_inputs": IDLE.sparse_inputs}
        cleaned[number] = block.model_copy(update=fields)
    return cleaned


class _Graph:
    """Who reads what from whom, and the orders of the blocks that this graph alone can tell.

    Colour refinement, then a search over what is still alike (McKay 1981, Practical graph isomorphism). Twins, which
    read the same blocks and are read by the same, can be swapped without a trace: one order of them is enough.
    """

    def __init__(self, cleaned: dict[int, BlockChoice]) -> None:
        self.reads = {number: tuple(sorted(_links(block))) for number, block in cleaned.items()}
        self.readers: dict[int, list[tuple[str, int]]] = {number: [] for number in (0, *cleaned)}
        for number, links in self.reads.items():
            for role, source in links:
                self.readers[source].append((role, number))
        self.computes = {number: _computes(block) for number, block in cleaned.items()}

    def orders(self) -> Iterator[tuple[int, ...]]:
        """Yield orders of the blocks, in which a block comes after those that it reads."""
        depths = {0: 0}
        for number, links in self.reads.items():
            depths[number] = 1 + max(depths[source] for _, source in links)
        yield from self._search({n: (depths[n], *self.computes[n]) for n in self.reads})

    def _search(self, signatures: Mapping[int, tuple[object, ...]]) -> Iterator[tuple[int, ...]]:
        colours = self._refined(signatures)
        classes: dict[int, list[int]] = {}
        for number in sorted(colours, key=colours.__getitem__):
            classes.setdefault(colours[number], []).append(number)
        alike = next((numbers for numbers in classes.values() if len(numbers) > 1), None)
        if alike is None:
            yield tuple(number for numbers in classes.values() for number in numbers)
            return
        twins = {(self.reads[number], tuple(self.readers[number])): number for number in alike}
        for first in twins.values():
            yield from self._search({number: (colours[number], number != first) for number in colours})

    def _refined(self, signatures: Mapping[int, tuple[object, ...]]) -> dict[int, int]:
        """Number the distinct signatures, and tell blocks apart by those around them until that tells no more."""
        colours = _ranked(signatures)
        while True:
            around = {number: (colours[number], *self._around(number, colours)) for number in colours}
            finer = _ranked(around)
            if len(set(finer.values())) == len(set(colours.values())):
                return colours
            colours = finer

    def _around(self, number: int, colours: dict[int, int]) -> tuple[list[tuple[str, int]], ...]:
        links = (self.reads[number], self.readers[number])
        return tuple(sorted((role, colours.get(other, -1)) for role, other in side) for side in links)


def _ranked(signatures: Mapping[int, Any]) -> dict[int, int]:
    distinct: list[Any] = []
    for signature in sorted(signatures.values()):
        if not distinct or distinct[-1] != signature:
            distinct.append(signature)
    return {number: distinct.index(signature) for number, signature in signatures.items()}


def _links(block: BlockChoice) -> Iterator[tuple[str, int]]:
    """What a block reads: the role and the number of each predecessor."""
    yield from (("dense", index) for index in block.dense_inputs)
    yield from (("sparse", index) for index in block.sparse_inputs)
    roles = ("either", "either") if block.dense_op == "sum" else ("left", "right")
    yield from zip(roles, (block.left, block.right), strict=True)


def _computes(block: BlockChoice) -> tuple[object, ...]:
    sizes = (block.dense_width, block.num_tokens, block.dense_to_sparse, block.fm)
    return (block.dense_op, block.sparse_op, *sizes)


def _renumbered(cleaned: dict[int, BlockChoice], order: Sequence[int]) -> list[BlockChoice]:
    new = {0: 0} | {number: place for place, number in enumerate(order, start=1)}
    blocks: list[BlockChoice] = []
    for number in order:
        block = cleaned[number]
        left, right = new[block.left], new[block.right]
        if block.dense_op == "sum":  # l + r = r + l
            left, right = sorted((left, right))
        fields = {
            "dense_inputs": tuple(sorted(new[index] for index in block.dense_inputs)),
            "sparse_inputs": tuple(sorted(new[index] for index in block.sparse_inputs)),
            "left": left,
            "right": right,
        }
        blocks.append(block.model_copy(update=fields))
    return blocks
