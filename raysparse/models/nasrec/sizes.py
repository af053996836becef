"""The sizes of what each block of a choice reads and makes, and which projections it does without. Pure."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from raysparse.models.nasrec.canonical import Use, uses_of
from raysparse.models.nasrec.choice import NUM_MERGED, BlockChoice, NASRecConfig

Role = Literal["fc", "vector", "compress", "pairs", "gate", "gated", "sum", "tokens", "merge", "fm", "logit"]
"""What a projection is for."""


@dataclass(frozen=True)
class BlockSizes:
    """The sizes of a block, by which it is built, run and counted."""

    use: Use
    num_inputs: int
    """Columns of the concatenated dense inputs."""
    num_tokens_in: int
    """Tokens of the concatenated sparse inputs."""
    is_one_dense: bool
    """Whether the dense inputs are those of a single predecessor."""
    is_one_sparse: bool
    """Whether the sparse inputs are those of a single predecessor."""
    left: int
    right: int
    dense_width: int
    num_tokens: int
    embedding_dim: int

    @property
    def gate_width(self) -> int:
        """Width to which gating, cross and sum fill up the narrower input with zeros."""
        return max(self.left, self.right)

    @property
    def num_compressed(self) -> int:
        """Tokens of which dot makes pairs."""
        return num_compressed(self.dense_width)

    @property
    def num_pairs(self) -> int:
        """Products of pairs of dot's compressed tokens and its dense vector."""
        return self.num_compressed * (self.num_compressed + 1) // 2

    @property
    def num_tokens_out(self) -> int:
        """Tokens that a reader sees."""
        return self.num_tokens + (NUM_MERGED if self.use.dense_to_sparse else 0)

    def skips(self, role: Role) -> bool:
        """Whether a projection is left out, since it would not change the width.

        NASRec's code leaves out those of a dot's inputs for several predecessors as well. What the dot makes then
        depends on their order, and so on how blocks are numbered, which is no property of a network.
        """
        if (role == "vector" and not self.is_one_dense) or (role == "compress" and not self.is_one_sparse):
            return False
        widths = {
            "vector": (self.num_inputs, self.embedding_dim),
            "compress": (self.num_tokens_in, self.num_compressed),
            "pairs": (self.num_pairs, self.dense_width),
            "gated": (self.gate_width, self.dense_width),
            "sum": (self.gate_width, self.dense_width),
            "merge": (self.dense_width, NUM_MERGED * self.embedding_dim),
            "fm": (self.embedding_dim, self.dense_width),
        }
        return role in widths and widths[role][0] == widths[role][1]


def num_compressed(dense_width: int) -> int:
    """Tokens whose pairs are about as many as the outputs: round(sqrt(2 d)) (NASRec's operator balancing)."""
    return round(math.sqrt(2 * dense_width))


def num_raw_inputs(choice: NASRecConfig, num_dense: int, num_features: int) -> int:
    """Columns of the raw dense input."""
    return num_dense + (num_features * choice.embedding_dim if choice.flat_tokens else 0)


@lru_cache(maxsize=4096)
def sizes_of(choice: NASRecConfig, num_dense: int, num_features: int) -> tuple[BlockSizes, ...]:
    """Return the sizes of all blocks, of those that nothing reads as well."""
    widths, tokens = [num_raw_inputs(choice, num_dense, num_features)], [num_features]
    sizes: list[BlockSizes] = []
    for block, use in zip(choice.blocks, uses_of(choice), strict=True):
        size = _sizes(block, use, widths, tokens, choice.embedding_dim)
        widths.append(size.dense_width)
        tokens.append(size.num_tokens_out)
        sizes.append(size)
    return tuple(sizes)


def _sizes(block: BlockChoice, use: Use, widths: list[int], tokens: list[int], embedding_dim: int) -> BlockSizes:
    return BlockSizes(
        use=use,
        num_inputs=sum(widths[index] for index in block.dense_inputs),
        num_tokens_in=sum(tokens[index] for index in block.sparse_inputs),
        is_one_dense=len(block.dense_inputs) == 1,
        is_one_sparse=len(block.sparse_inputs) == 1,
        left=widths[block.left],
        right=widths[block.right],
        dense_width=block.dense_width,
        num_tokens=block.num_tokens,
        embedding_dim=embedding_dim,
    )
