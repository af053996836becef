"""A NASRec network as a typed choice: what each block computes and which blocks it reads."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from raysparse.config import Config, Fault, refuse

DenseOperator = Literal["fc", "dot", "gating", "sum", "cross"]
SparseOperator = Literal["efc", "attention"]

MAX_INPUTS = 4
"""Predecessors in a set of a block."""

NUM_MERGED = 8
"""Tokens that the dense-to-sparse merger appends."""


class BlockChoice(Config):
    """A block: one dense and one sparse operator, their inputs and two mergers.

    Inputs are numbers of predecessors: 0 is the raw input, 1 the first block.
    """

    dense_op: DenseOperator = "fc"
    """fc, dot (products of all pairs of tokens), or gating, sum or cross (of two dense inputs)."""
    sparse_op: SparseOperator = "efc"
    """efc (a linear map across the tokens) or attention."""
    dense_width: int = Field(ge=1)
    """Outputs of the dense operator."""
    num_tokens: int = Field(ge=1)
    """Tokens of the sparse operator."""
    dense_inputs: tuple[int, ...] = (0,)
    """Whose dense outputs fc and dot read."""
    sparse_inputs: tuple[int, ...] = (0,)
    """Whose tokens the sparse operator and dot read."""
    left: int = 0
    """Whose dense output gating turns into the gate, cross maps, or sum adds."""
    right: int = 0
    """Whose dense output gating lets through, cross multiplies, or sum adds."""
    dense_to_sparse: bool = False
    """Whether the dense operator's output is appended to the tokens, as 8 more."""
    fm: bool = False
    """Whether a factorization machine of the tokens is added to the dense output."""


class NASRecConfig(Config):
    """A NASRec network; the last block feeds the logit."""

    kind: Literal["nasrec"] = "nasrec"
    embedding_dim: int = Field(default=16, ge=4, multiple_of=4)
    """Width of a token, and of every table that `field_dims` does not narrow."""
    layer_norm: bool = True
    """Whether operators and projections normalise what they make."""
    flat_tokens: bool = False
    """Whether the raw dense input holds the raw tokens as well, one behind the other, as the deep part of DeepFM and
    the cross part of DCN-v2 read them."""
    field_dims: tuple[int, ...] | None = None
    """Width of each id feature's table, filled up with zeros; null: `embedding_dim` for all."""
    blocks: tuple[BlockChoice, ...] = Field(min_length=1)
    """The blocks in order; a block reads only earlier ones."""

    if TYPE_CHECKING:  # as every frozen config has; type checkers do not see that it is frozen

        def __hash__(self) -> int: ...

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse(self, (*self._block_faults(), *self._field_faults()))
        return self

    def _block_faults(self) -> Iterator[Fault]:
        for number, block in enumerate(self.blocks, start=1):
            reads_set = block.dense_op in ("fc", "dot")
            reader = f"{block.dense_op} of block {number}"
            yield from _set_faults(number, "dense_inputs", block.dense_inputs, reader if reads_set else None)
            reader = f"{block.sparse_op} of block {number}"
            yield from _set_faults(number, "sparse_inputs", block.sparse_inputs, reader)
            for key, index in (("left", block.left), ("right", block.right)):
                if not 0 <= index < number:
                    yield ("blocks", number - 1, key), index, _earlier(number)

    def _field_faults(self) -> Iterator[Fault]:
        for feature, width in enumerate(self.field_dims or ()):
            if width < 4 or width % 4 or width > self.embedding_dim:
                text = f"a multiple of 4 of at most embedding_dim ({self.embedding_dim})"
                yield ("field_dims", feature), width, text


def _set_faults(number: int, key: str, inputs: tuple[int, ...], reader: str | None) -> Iterator[Fault]:
    loc = ("blocks", number - 1, key)
    if reader is not None and not inputs:
        yield loc, inputs, f"at least one input, which {reader} reads"
    if len(inputs) > MAX_INPUTS:
        yield loc, inputs, f"at most {MAX_INPUTS} inputs of block {number}"
    if len(set(inputs)) < len(inputs):
        yield loc, inputs, f"each input of block {number} once"
    if any(not 0 <= index < number for index in inputs):
        yield loc, inputs, _earlier(number)


def _earlier(number: int) -> str:
    return f"0 (the raw input) to {number - 1}: block {number} reads only what comes before it"
