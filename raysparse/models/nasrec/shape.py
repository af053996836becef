"""Shapes: for which choices a network holds weights."""

from collections.abc import Mapping
from dataclasses import dataclass

from raysparse.models.nasrec.canonical import uses_of
from raysparse.models.nasrec.choice import NUM_MERGED, DenseOperator, NASRecConfig, SparseOperator
from raysparse.models.nasrec.sizes import BlockSizes, Role, num_compressed, sizes_of

Pieces = Mapping[str, int]
"""Columns of a weight by whose output they read: name and largest width."""

WHOLE = "whole"
"""The piece of a weight that is never read in parts."""


@dataclass(frozen=True)
class SupernetShape:
    """The largest member of a space, in which all members find their weights."""

    num_dense: int
    num_features: int
    embedding_dim: int
    num_blocks: int
    dense_width: int
    """Of every block, at most."""
    num_tokens: int
    """Of every block, at most."""
    dense_ops: tuple[DenseOperator, ...] = ("fc", "dot", "gating", "sum")
    sparse_ops: tuple[SparseOperator, ...] = ("efc", "attention")
    layer_norms: tuple[bool, ...] = (True,)
    """Whether members normalise: True, False, or both."""
    flat_tokens: tuple[bool, ...] = (False,)
    """Whether members' raw dense input holds the tokens as well: True, False, or both."""

    @property
    def num_raw_inputs(self) -> int:
        """Most columns of the raw dense input."""
        return self.num_dense + (self.num_features * self.embedding_dim if True in self.flat_tokens else 0)


@dataclass(frozen=True)
class BlockShape:
    """For which choices a block holds weights."""

    embedding_dim: int
    dense_ops: tuple[DenseOperator, ...]
    sparse_ops: tuple[SparseOperator, ...]
    dense_to_sparse: bool
    fm: bool
    layer_norms: tuple[bool, ...]
    dense_pieces: Pieces
    token_pieces: Pieces
    left_pieces: Pieces
    right_pieces: Pieces
    right_width: int
    """Widest input that gating lets through, or cross multiplies."""
    gate_width: int
    """Widest sum of two inputs."""
    dense_width: int
    num_tokens: int
    num_compressed: int
    fixed: BlockSizes | None = None
    """Of the one choice that a subnet's block is for."""

    @property
    def num_pairs(self) -> int:
        """Most products of pairs that dot makes."""
        return self.num_compressed * (self.num_compressed + 1) // 2

    def skips(self, role: Role) -> bool:
        """Whether no choice needs a projection."""
        return self.fixed is not None and self.fixed.skips(role)


@dataclass(frozen=True)
class NetworkShape:
    """The shapes of all blocks and of the head."""

    num_dense: int
    num_features: int
    embedding_dim: int
    blocks: tuple[BlockShape, ...]
    logit_pieces: Pieces


def merged_name(name: str) -> str:
    """Name of the tokens that the dense-to-sparse merger of a block appends."""
    return f"{name}_merged"


def supernet_shape(shape: SupernetShape) -> NetworkShape:
    """Return the shape whose blocks hold weights for every predecessor, operator and merger."""
    blocks = tuple(_supernet_block(shape, number) for number in range(1, shape.num_blocks + 1))
    pieces = {
        "dense": shape.dense_width,
        "tokens": shape.num_tokens * shape.embedding_dim,
        "merged": NUM_MERGED * shape.embedding_dim,
    }
    return NetworkShape(shape.num_dense, shape.num_features, shape.embedding_dim, blocks, pieces)


def _supernet_block(shape: SupernetShape, number: int) -> BlockShape:
    dense_pieces, token_pieces = {"0": shape.num_raw_inputs}, {"0": shape.num_features}
    for name in map(str, range(1, number)):
        dense_pieces[name] = shape.dense_width
        token_pieces |= {name: shape.num_tokens, merged_name(name): NUM_MERGED}
    widest = max(dense_pieces.values())
    return BlockShape(
        embedding_dim=shape.embedding_dim,
        dense_ops=shape.dense_ops,
        sparse_ops=shape.sparse_ops,
        dense_to_sparse=True,
        fm=True,
        layer_norms=shape.layer_norms,
        dense_pieces=dense_pieces,
        token_pieces=token_pieces,
        left_pieces=dense_pieces,
        right_pieces=dense_pieces,
        right_width=widest,
        gate_width=widest,
        dense_width=shape.dense_width,
        num_tokens=shape.num_tokens,
        num_compressed=num_compressed(shape.dense_width),
    )


def subnet_shape(choice: NASRecConfig, num_dense: int, num_features: int) -> NetworkShape:
    """Return the shape that holds a canonical choice's weights alone, each matrix in one piece."""
    all_sizes = sizes_of(choice, num_dense, num_features)
    blocks = tuple(_subnet_block(choice, number, sizes) for number, sizes in enumerate(all_sizes, start=1))
    last = all_sizes[-1]
    pieces = {WHOLE: last.dense_width + last.num_tokens_out * choice.embedding_dim}
    return NetworkShape(num_dense, num_features, choice.embedding_dim, blocks, pieces)


def _subnet_block(choice: NASRecConfig, number: int, sizes: BlockSizes) -> BlockShape:
    block, use = choice.blocks[number - 1], uses_of(choice)[number - 1]
    return BlockShape(
        embedding_dim=choice.embedding_dim,
        dense_ops=(block.dense_op,) if use.dense_op else (),
        sparse_ops=(block.sparse_op,) if use.sparse_op else (),
        dense_to_sparse=use.dense_to_sparse,
        fm=use.fm,
        layer_norms=(choice.layer_norm,),
        dense_pieces={WHOLE: sizes.num_inputs},
        token_pieces={WHOLE: sizes.num_tokens_in},
        left_pieces={WHOLE: sizes.left},
        right_pieces={WHOLE: sizes.right},
        right_width=sizes.right,
        gate_width=sizes.gate_width,
        dense_width=sizes.dense_width,
        num_tokens=sizes.num_tokens,
        num_compressed=sizes.num_compressed,
        fixed=sizes,
    )
