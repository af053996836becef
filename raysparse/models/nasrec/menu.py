"""What the networks of a space may choose from."""

from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, model_validator

from raysparse.config import Config
from raysparse.models.nasrec.choice import MAX_INPUTS, DenseOperator, SparseOperator

DENSE_WIDTHS = (16, 32, 64, 128, 256, 512, 768, 1024)
TOKEN_COUNTS = (16, 32, 48, 64)
NARROW = (4, 8)
"""Dense widths and token counts that the wide menu adds."""


@dataclass(frozen=True)
class Menu:
    """What a block, and a network, may choose from."""

    dense_ops: tuple[DenseOperator, ...]
    sparse_ops: tuple[SparseOperator, ...]
    dense_widths: tuple[int, ...]
    token_counts: tuple[int, ...]
    layer_norms: tuple[bool, ...] = (True,)
    flat_tokens: tuple[bool, ...] = (False,)
    """Whether dense operators may read the raw tokens, one behind the other."""
    field_dims: tuple[int, ...] = ()
    """Widths of a table; empty: all are as wide as a token."""


PUBLISHED_DENSE: tuple[DenseOperator, ...] = ("fc", "dot", "gating", "sum")
MENUS = {
    "small": Menu(("fc", "dot"), ("efc",), DENSE_WIDTHS, TOKEN_COUNTS),
    "full": Menu(PUBLISHED_DENSE, ("efc", "attention"), DENSE_WIDTHS, TOKEN_COUNTS),
    "wide": Menu(
        dense_ops=(*PUBLISHED_DENSE, "cross"),
        sparse_ops=("efc", "attention"),
        dense_widths=NARROW + DENSE_WIDTHS,
        token_counts=NARROW + TOKEN_COUNTS,
        layer_norms=(True, False),
        flat_tokens=(False, True),
        field_dims=(4, 8, 16),
    ),
}


class CTRSpaceConfig(Config):
    """NASRec networks; the defaults are the published space."""

    kind: Literal["ctr"] = "ctr"
    menu: Literal["small", "full", "wide"] = "full"
    """small and full are NASRec's; wide adds narrower blocks and tables, layer norm on or off, raw tokens that dense
    operators read one behind the other, and DCN-v2's products."""
    num_blocks: int = Field(default=7, ge=1)
    """Blocks of a network, those that nothing reads included."""
    max_inputs: int = Field(default=MAX_INPUTS, ge=1, le=MAX_INPUTS)
    """Predecessors in a set of a block, at most."""
    embedding_dim: int = Field(default=16, ge=4, multiple_of=4)
    """Width of a token."""
    dense_ops: tuple[DenseOperator, ...] | None = Field(default=None, min_length=1)
    """Dense operators; null: the menu's."""
    sparse_ops: tuple[SparseOperator, ...] | None = Field(default=None, min_length=1)
    """Sparse operators; null: the menu's. On a CPU, attention takes several times as long for its multiply-adds as the
    others do."""
    layer_norms: tuple[bool, ...] | None = Field(default=None, min_length=1)
    """Whether networks normalise: true, false, or both; null: as in the menu."""
    flat_tokens: tuple[bool, ...] | None = Field(default=None, min_length=1)
    """Whether dense operators may read the raw tokens one behind the other: true, false, or both; null: as in the
    menu."""
    dense_widths: tuple[int, ...] | None = Field(default=None, min_length=1)
    """Widths of a dense operator; null: the menu's."""
    token_counts: tuple[int, ...] | None = Field(default=None, min_length=1)
    """Tokens of a sparse operator; null: the menu's."""
    field_dims: tuple[int, ...] | None = Field(default=None, min_length=1)
    """Widths of a table; null: the menu's, those of them that are at most embedding_dim."""
    max_macs: int | None = Field(default=None, ge=1)
    """Multiply-adds of a network for one row, at most; null: any."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for key in ("dense_widths", "token_counts", "field_dims"):
            sizes: tuple[int, ...] = getattr(self, key) or ()
            if any(size < 1 for size in sizes) or len(set(sizes)) < len(sizes):
                raise ValueError(f"{key} of positive numbers, each once; found {', '.join(map(str, sizes))}")
        for key in ("dense_ops", "sparse_ops", "layer_norms", "flat_tokens"):
            values: tuple[object, ...] = getattr(self, key) or ()
            if len(set(values)) < len(values):
                raise ValueError(f"{key} of different values; found {', '.join(map(str, values))}")
        if any(width < 4 or width % 4 or width > self.embedding_dim for width in self.field_dims or ()):
            raise ValueError(
                f"field_dims of multiples of 4 of at most embedding_dim ({self.embedding_dim}); "
                f"found {', '.join(map(str, self.field_dims or ()))}"
            )
        return self

    @property
    def choices(self) -> Menu:
        """What there is to choose from."""
        menu = MENUS[self.menu]
        return Menu(
            self.dense_ops or menu.dense_ops,
            self.sparse_ops or menu.sparse_ops,
            self.dense_widths or menu.dense_widths,
            self.token_counts or menu.token_counts,
            self.layer_norms or menu.layer_norms,
            self.flat_tokens or menu.flat_tokens,
            self.field_dims or tuple(width for width in menu.field_dims if width <= self.embedding_dim),
        )
