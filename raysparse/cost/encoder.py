"""Multiply-adds of an encoder of histories, counted from its widths."""

from raysparse.models.sasrec.attention import attention_macs
from raysparse.models.sasrec.config import SASRecConfig


def encoder_macs(config: SASRecConfig, length: int) -> int:
    """Return the multiply-adds of all matrix products that encode each place of one history of `length` items.

    Softmax attention counts both products in full, also above the diagonal: `2 * length^2 * W` for heads of `W`
    channels together. Linear attention counts the products within chunks, and those with the state. The end alone,
    which is all that scoring asks for, takes fewer: the last block works out only what is wanted.
    """
    return sum(_block_macs(config, layer, length) for layer in range(config.num_layers))


def _block_macs(config: SASRecConfig, layer: int, length: int) -> int:
    width, inner = config.embedding_dim, config.inner_widths[layer]
    head_dim = config.head_dims[layer]
    of_heads = config.head_counts[layer] * head_dim
    of_item = 4 * width * of_heads + 2 * width * inner + _gate_macs(config.gate, width, inner)
    return length * of_item + attention_macs(config.attention_kinds[layer], length, of_heads, head_dim)


def _gate_macs(gate: str, width: int, inner: int) -> int:
    if gate == "none":
        return 0
    if gate == "paper":
        return (width + inner) * inner + 2 * width * width
    hidden = max(1, width // 4)
    return 2 * (2 * width) * hidden + hidden * (inner + width)
