"""The six networks that NASRec's authors published (github.com/facebookresearch/NasRec), and their counts."""

import re
from dataclasses import dataclass

from raysparse.models.nasrec.choice import BlockChoice, NASRecConfig

BLOCK = re.compile(
    r"(FC|DP|SG|SUM)(\d+)\((?:L(\d) R(\d)|([\d,]+)(?:×([\d,]+))?)\) (EFC|TR)(\d+)\(([\d,]+)\)(\+DS)?(\+FM)?"
)
DENSE = {"FC": "fc", "DP": "dot", "SG": "gating", "SUM": "sum"}
SPARSE = {"EFC": "efc", "TR": "attention"}


@dataclass(frozen=True)
class Winner:
    text: str
    num_dense: int
    num_features: int
    macs: float
    """Millions, as published."""
    parameters: float
    """Millions, of the live dense part."""

    @property
    def choice(self) -> NASRecConfig:
        return NASRecConfig(layer_norm=False, blocks=tuple(_block(text) for text in self.text.split(" · ")))


def _block(text: str) -> BlockChoice:
    found = BLOCK.fullmatch(text)
    assert found is not None, text
    dense, width, left, right, inputs, dot_tokens, sparse, num_tokens, tokens, merged, fm = found.groups()
    assert dot_tokens in (None, tokens)  # dot reads the tokens that the sparse operator reads
    # The dictionaries' values are checked by the config; their type is that of any text.
    return BlockChoice(
        dense_op=DENSE[dense],  # type: ignore[arg-type]
        sparse_op=SPARSE[sparse],  # type: ignore[arg-type]
        dense_width=int(width),
        num_tokens=int(num_tokens),
        dense_inputs=_numbers(inputs or "0"),
        sparse_inputs=_numbers(tokens),
        left=int(left or 0),
        right=int(right or 0),
        dense_to_sparse=merged is not None,
        fm=fm is not None,
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


CRITEO, AVAZU, KDD = (13, 26), (1, 23), (3, 10)

WINNERS = {
    "criteo-small": Winner(
        "FC256(0) EFC48(0)+DS · DP1024(1×0,1) EFC48(0,1)+DS+FM · FC128(0,2) EFC16(0,1,2)+DS · FC16(2) EFC48(0,2)+FM · "
        "DP128(0,2,3,4×2,4) EFC32(2,4) · FC16(0,1,2,5) EFC64(1,2,5)+DS · FC1024(0,3,5) EFC64(0,1,2,5)",
        *CRITEO,
        macs=2.20,
        parameters=1.74,
    ),
    "criteo-full": Winner(
        "SG128(L0 R0) TR64(0)+DS · DP32(0×0) EFC64(0) · DP768(1,2×0,1,2) EFC32(0,1,2)+FM · SG768(L2 R0) "
        "EFC48(0,1,2,3)+DS · FC16(0,2,3,4) EFC16(0,1,2,3)+FM · FC768(0,3,4,5) TR16(1,4)+DS · FC128(0,2,3) TR48(1,3)+FM",
        *CRITEO,
        macs=1.45,
        parameters=0.75,
    ),
    "avazu-small": Winner(
        "DP512(0×0) EFC64(0)+DS · FC1024(0,1) EFC48(0)+DS · FC512(0,2) EFC16(0)+FM · DP768(3×0,3) EFC48(0,3)+DS+FM · "
        "FC128(0,2,3) EFC16(0,1)+DS+FM · FC128(1,3,4) EFC64(0,1,3)+DS · FC512(5) EFC32(1,2,6)+DS+FM",
        *AVAZU,
        macs=3.08,
        parameters=2.74,
    ),
    "avazu-full": Winner(
        "DP32(0×0) TR48(0)+DS · DP768(0,1×0,1) EFC64(0,1)+DS · FC512(0) EFC48(0)+DS · SUM768(L1 R0) TR16(3)+DS+FM · "
        "DP768(2,3,4×2) EFC64(2) · SG1024(L0 R3) EFC64(0,4)+DS · SG768(L0 R2) TR16(2,3)+DS",
        *AVAZU,
        macs=1.87,
        parameters=1.48,
    ),
    "kdd-small": Winner(
        "FC768(0) EFC48(0)+DS+FM · DP128(0,1×0,1) EFC64(0,1)+DS · DP32(0,1,2×0,1) EFC48(0,1)+DS+FM · FC256(0,1,2,3) "
        "EFC64(0,2,3) · FC1024(3,4) EFC64(0,1,2,4) · DP768(1,2,5×4,5) EFC64(4,5) · DP1024(2,3,4,6×0,1,2,4) "
        "EFC48(0,1,2,4)+DS",
        *KDD,
        macs=3.48,
        parameters=2.60,
    ),
    "kdd-full": Winner(
        "DP128(0×0) TR48(0)+DS · SG768(L0 R0) TR64(1)+DS · SG16(L1 R0) EFC48(1,2) · SUM64(L2 R2) TR16(1)+DS · "
        "SUM64(L0 R2) EFC48(0,2) · FC128(3,4) EFC32(0,1,4,5)+FM · SG768(L5 R5) EFC16(1,3,4,5)+DS",
        *KDD,
        macs=1.09,
        parameters=0.40,
    ),
}
