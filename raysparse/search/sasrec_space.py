"""The space of elastic SASRec networks for a data set. Any process, no Ray."""

from collections.abc import Callable, Iterator, Sequence
from random import Random

from raysparse.config import check
from raysparse.cost.encoder import encoder_macs
from raysparse.cost.record import Cost, encoder_cost
from raysparse.data.schema import ITEM_TABLE, Schema
from raysparse.errors import ConfigError
from raysparse.models.sasrec.config import Attention, SASRecConfig
from raysparse.models.sasrec.menu import SASRecSpaceConfig
from raysparse.search.space import MAX_MUTATIONS, MAX_SAMPLES, Fault, plain_tree, refuse_faults

AXES = ("blocks", "depth", "width", "length")
"""What differs between networks, in the order in which training opens it: what a block has comes first."""

_Block = tuple[int, int, Attention]
"""Heads, inner width in widths of the encoder, kind of attention."""


class SASRecSpace:
    """A `Space` of `SASRecConfig` for a data set. Any process."""

    def __init__(self, config: SASRecSpaceConfig, schema: Schema) -> None:
        self.config = config
        self._rows = next(feature.rows for feature in schema.ids if feature.table_name == ITEM_TABLE)
        self.cheapest = cheapest(config)
        least = _macs(self.cheapest)
        if config.max_macs is not None and least > config.max_macs:
            raise ConfigError(
                f"space.max_macs: found {config.max_macs:,}; the smallest network of the space takes {least:,} "
                f"multiply-adds for a history ({text_of(self.cheapest)}). Allowed: {least:,} or more"
            )

    def sample(self, random: Random) -> SASRecConfig:
        """Draw a choice evenly on each axis, within the budget."""
        for _ in range(MAX_SAMPLES):
            choice = self.sample_open(random, len(AXES))
            if self._fits(choice):
                return choice
        choice = self.cheapest
        for _ in range(MAX_MUTATIONS):
            choice = self.mutate(choice, random)
        return choice

    def sample_open(self, random: Random, num_open: int) -> SASRecConfig:
        """Draw the first axes of `AXES`, and take the largest on the others; it does not heed the budget."""
        return self._opened(num_open, random.choice)

    def smallest_open(self, num_open: int) -> SASRecConfig:
        """Return the smallest network that differs from the largest on the first axes of `AXES` alone."""
        return self._opened(num_open, min)

    def _opened(self, num_open: int, pick: Callable[[Sequence[int]], int]) -> SASRecConfig:
        config, largest, opened = self.config, self.config.largest, AXES[:num_open]
        depth = pick(config.depths) if "depth" in opened else largest.num_layers
        width = pick(config.widths) if "width" in opened else largest.embedding_dim
        length = pick(config.lengths) if "length" in opened else largest.max_length
        if "blocks" not in opened:
            return self._network(width, length, _blocks(largest)[:depth])
        kinds = range(len(config.attentions))
        blocks: list[_Block] = [
            (pick(config.heads), pick(config.ffn_ratios), config.attentions[pick(kinds)]) for _ in range(depth)
        ]
        return self._network(width, length, blocks)

    def mutate(self, choice: SASRecConfig, random: Random) -> SASRecConfig:
        """Draw one axis anew, or one property of one block, so that the network is another one."""
        for _ in range(MAX_MUTATIONS):
            mutated = self._mutated(choice, random)
            if mutated != choice and self._fits(mutated):
                return mutated
        return choice

    def crossover(self, first: SASRecConfig, second: SASRecConfig, random: Random) -> SASRecConfig:
        """Take width, length, depth and each block from one of two choices; the first where none is in the budget."""
        for _ in range(MAX_MUTATIONS):
            deep = random.choice((first, second))
            blocks = [
                random.choice([_blocks(parent)[layer] for parent in (first, second) if layer < parent.num_layers])
                for layer in range(deep.num_layers)
            ]
            width = random.choice((first, second)).embedding_dim
            mixed = self._network(width, random.choice((first, second)).max_length, blocks)
            if self._fits(mixed):
                return mixed
        return first

    def canonical(self, choice: SASRecConfig) -> SASRecConfig:
        """Return the choice: no two of them are the same network."""
        return choice

    def key(self, choice: SASRecConfig) -> str:
        """Return the choice in one line."""
        return text_of(choice)

    def cost(self, choice: SASRecConfig) -> Cost:
        """Return what encoding a history of the choice's length takes."""
        return encoder_cost(choice, self._rows)

    def parse(self, tree: object) -> SASRecConfig:
        """Read a choice of this space; ConfigError with the keys of what is not in it, or over the budget."""
        choice = check(SASRecConfig, plain_tree(tree), "the choice")
        refuse_faults(self._faults(choice))
        if not self._fits(choice):
            raise ConfigError(
                f"the choice takes {_macs(choice):,} multiply-adds; allowed: max_macs = {self.config.max_macs:,}"
            )
        return choice

    def size(self) -> int:
        """Count the choices exactly, the budget aside."""
        config = self.config
        of_block = len(config.heads) * len(config.ffn_ratios) * len(config.attentions)
        return len(config.widths) * len(config.lengths) * sum(of_block**depth for depth in config.depths)

    def uniform(self) -> list[SASRecConfig]:
        """Return the networks whose blocks are all alike, in the order of their cost: what scaling by hand tries."""
        config = self.config
        found = [
            self._network(width, length, [(heads, ratio, config.attentions[0])] * depth)
            for width in config.widths
            for length in config.lengths
            for heads in config.heads
            for ratio in config.ffn_ratios
            for depth in config.depths
        ]
        return sorted((choice for choice in found if self._fits(choice)), key=_macs)

    def _fits(self, choice: SASRecConfig) -> bool:
        return self.config.max_macs is None or _macs(choice) <= self.config.max_macs

    def _draw_block(self, random: Random) -> _Block:
        config = self.config
        return random.choice(config.heads), random.choice(config.ffn_ratios), random.choice(config.attentions)

    def _network(self, width: int, length: int, blocks: list[_Block]) -> SASRecConfig:
        heads, ratios, kinds = zip(*blocks, strict=True)
        return self.config.network(width, length, heads, ratios, kinds)

    def _mutated(self, choice: SASRecConfig, random: Random) -> SASRecConfig:
        """Change the choice once; perhaps into itself."""
        config, blocks = self.config, _blocks(choice)
        width, length = choice.embedding_dim, choice.max_length
        match random.choice(("width", "length", "depth", *range(len(blocks)))):
            case "width":
                width = random.choice(config.widths)
            case "length":
                length = random.choice(config.lengths)
            case "depth":
                depth = random.choice(config.depths)
                blocks = (blocks + [self._draw_block(random) for _ in range(depth)])[:depth]
            case layer:
                drawn, part = self._draw_block(random), random.randrange(3)
                assert isinstance(layer, int)
                old = blocks[layer]
                blocks[layer] = (
                    drawn[0] if part == 0 else old[0],
                    drawn[1] if part == 1 else old[1],
                    drawn[2] if part == 2 else old[2],
                )
        return self._network(width, length, blocks)

    def _faults(self, choice: SASRecConfig) -> Iterator[Fault]:
        config = self.config
        for key, found, allowed in (
            ("embedding_dim", choice.embedding_dim, config.widths),
            ("num_layers", choice.num_layers, config.depths),
            ("max_length", choice.max_length, config.lengths),
        ):
            if found not in allowed:
                yield key, found, allowed
        widths = tuple(ratio * choice.embedding_dim for ratio in config.ffn_ratios)
        for layer, (heads, inner, kind) in enumerate(
            zip(choice.head_counts, choice.inner_widths, choice.attention_kinds, strict=True)
        ):
            for key, found, allowed in (
                ("num_heads", heads, config.heads),
                ("ffn_width", inner, widths),
                ("attention", kind, config.attentions),
            ):
                if found not in allowed:
                    yield f"{key}.{layer}", found, allowed
        for key in ("head_dim", "dropout", "norm", "gate", "loss"):
            if getattr(choice, key) != getattr(config, key):
                yield key, getattr(choice, key), getattr(config, key)


def cheapest(config: SASRecSpaceConfig) -> SASRecConfig:
    """Return the network of a space that takes the fewest multiply-adds: the smallest one, by one kind of attention."""
    smallest = config.smallest
    kinds: list[list[Attention]] = [[kind] * smallest.num_layers for kind in config.attentions]
    ratios = [inner // smallest.embedding_dim for inner in smallest.inner_widths]
    networks = (
        config.network(smallest.embedding_dim, smallest.max_length, smallest.head_counts, ratios, of_blocks)
        for of_blocks in kinds
    )
    return min(networks, key=_macs)


def text_of(choice: SASRecConfig) -> str:
    """Return a choice in one line: width, length, and per block its heads and the neurons of its inner layer."""
    blocks = (
        f"{heads} {'head' if heads == 1 else 'heads'} {inner} neurons" + (" linear" if kind == "linear" else "")
        for heads, inner, kind in zip(choice.head_counts, choice.inner_widths, choice.attention_kinds, strict=True)
    )
    return f"{choice.embedding_dim} wide, {choice.max_length} items: {'; '.join(blocks)}"


def _blocks(choice: SASRecConfig) -> list[_Block]:
    ratios = (inner // choice.embedding_dim for inner in choice.inner_widths)
    return list(zip(choice.head_counts, ratios, choice.attention_kinds, strict=True))


def _macs(choice: SASRecConfig) -> int:
    return encoder_macs(choice, choice.max_length)
