"""Multiply-adds of an encoder of histories, counted from its widths."""

from raysparse.models.sasrec.attention import CHUNK
from raysparse.models.sasrec.config import SASRecConfig


def encoder_macs(config: SASRecConfig, length: int) -> int:
    """Return the multiply-adds of all matrix products for one history of `length` items.

    Softmax attention counts both products in full, also above the diagonal: `2 * length^2 * D`. Linear attention counts
    the products within chunks, and those with the state.
    """
    width, inner = config.embedding_dim, config.inner_width
    of_item = 4 * width * width + 2 * width * inner + _gate_macs(config)
    attention = sum(_attention_macs(kind, config, length) for kind in config.attention_kinds)
    return config.num_layers * length * of_item + attention


def _attention_macs(kind: str, config: SASRecConfig, length: int) -> int:
    width, head = config.embedding_dim, config.embedding_dim // config.num_heads
    if kind == "softmax":
        return 2 * length * length * width
    chunks = [min(CHUNK, length - start) for start in range(0, length, CHUNK)]
    # The first chunk reads no state, and no chunk reads what the last would leave.
    through_state = (sum(chunks[1:]) + sum(chunks[:-1])) * width * head
    return sum(2 * size * size * width for size in chunks) + through_state


def _gate_macs(config: SASRecConfig) -> int:
    width, inner = config.embedding_dim, config.inner_width
    if config.gate == "none":
        return 0
    if config.gate == "paper":
        return (width + inner) * inner + 2 * width * width
    hidden = max(1, width // 4)
    return 2 * (2 * width) * hidden + hidden * (inner + width)
