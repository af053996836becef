"""The space of NASRec networks for a data set (arXiv 2207.07187, section 3.2). Any process, no Ray."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import comb
from random import Random

from raysparse.config import check
from raysparse.cost.record import Cost
from raysparse.data.schema import Schema
from raysparse.errors import ConfigError
from raysparse.models.nasrec.canonical import Use, canonical, text_of, uses_of
from raysparse.models.nasrec.choice import BlockChoice, NASRecConfig
from raysparse.models.nasrec.macs import count
from raysparse.models.nasrec.menu import CTRSpaceConfig
from raysparse.models.nasrec.shape import SupernetShape
from raysparse.models.nasrec.supernet import shape_of
from raysparse.models.recommender import table_widths
from raysparse.search.space import MAX_MUTATIONS, MAX_SAMPLES, Fault, plain_tree, refuse_faults


@dataclass(frozen=True)
class SpaceSize:
    """How many choices there are, counted in three ways; many of them are equal networks."""

    published: int
    """NASRec's count: (operators x widths)^blocks x any set of inputs, without mergers and gates' inputs."""
    sampled: int
    """What `sample` reaches: non-empty sets within the limit, and mergers."""
    sampled_with_gates: int
    """The same with the inputs of gating, sum and cross, which every choice has."""


class CTRSpace:
    """A `Space` of `NASRecConfig` for a data set. Any process."""

    def __init__(self, config: CTRSpaceConfig, schema: Schema) -> None:
        self.config = config
        self.schema = schema
        self.menu = config.choices
        self._tables = tuple(dict.fromkeys(feature.table_name for feature in schema.ids))
        self._rows = {feature.table_name: feature.rows for feature in schema.ids}
        least = self._macs(self.cheapest)
        if config.max_macs is not None and least > config.max_macs:
            raise ConfigError(
                f"space.max_macs: found {config.max_macs:,}; the smallest network of the space takes {least:,} "
                f"multiply-adds on this data set ({text_of(self.cheapest)}). Allowed: {least:,} or more"
            )

    @property
    def shape(self) -> SupernetShape:
        """The shape of a supernet that holds weights for every choice."""
        return shape_of(self.config, self.schema.num_dense_inputs, len(self.schema.ids))

    @property
    def cheapest(self) -> NASRecConfig:
        """The network of the fewest multiply-adds."""
        return self._alone(self._smallest_last_block)

    def sample(self, random: Random) -> NASRecConfig:
        """Draw a choice by any-connection, single-operator sampling, within the budget.

        Each set has 1 + Binomial(min(b - 1, max_inputs - 1), 1/2) of a block's b predecessors.
        """
        return self.sample_warm_up(random, full_share=0.0)

    def sample_warm_up(self, random: Random, full_share: float) -> NASRecConfig:
        """Draw a choice of which a share is taken from the full path, as supernet training starts.

        One coin says for the whole network whether every block reads as many predecessors as it may; a coin per block
        whether its operators are as wide as can be, with both mergers.
        """
        for _ in range(MAX_SAMPLES):
            choice = self._draw(random, full_share)
            if self._fits(choice):
                return choice
        return self._walk(random)

    def full_path(self, random: Random) -> NASRecConfig:
        """Draw operators and put them at full width, with both mergers and as many inputs as blocks may have.

        Which predecessors these are is drawn where there are more. It does not heed the budget.
        """
        return self._draw(random, full_share=1.0)

    def mutate(self, choice: NASRecConfig, random: Random) -> NASRecConfig:
        """Change one field of one block, or one of the network, so that the network is another one."""
        key = self.key(choice)
        for _ in range(MAX_MUTATIONS):
            mutated = self._mutated(choice, random)
            if self.key(mutated) != key and self._fits(mutated):
                return mutated
        return choice

    def crossover(self, first: NASRecConfig, second: NASRecConfig, random: Random) -> NASRecConfig:
        """Take each block from one of two choices; the first one where no mixture is within the budget."""
        if len(first.blocks) != len(second.blocks):
            return first
        for _ in range(MAX_MUTATIONS):
            blocks = tuple(random.choice(pair) for pair in zip(first.blocks, second.blocks, strict=True))
            other = random.choice((first, second))
            mixed = other.model_copy(update={"blocks": blocks})
            if self._fits(mixed):
                return mixed
        return first

    def canonical(self, choice: NASRecConfig) -> NASRecConfig:
        """Return the choice that all choices of the same network share."""
        return canonical(choice)

    def key(self, choice: NASRecConfig) -> str:
        """Return the canonical form in one line."""
        return text_of(canonical(choice))

    def cost(self, choice: NASRecConfig) -> Cost:
        """Return what a choice takes when it runs alone."""
        counted = count(choice, self.schema.num_dense_inputs, len(self.schema.ids))
        widths = table_widths(self.schema, choice.embedding_dim, choice.field_dims)
        embedding_bytes = sum(4 * self._rows[table] * widths[table] for table in self._tables)
        return Cost(macs=counted.macs, parameters=counted.parameters, embedding_bytes=embedding_bytes)

    def parse(self, tree: object) -> NASRecConfig:
        """Read a choice of this space; ConfigError with the keys of what is not in it, or over the budget."""
        choice = check(NASRecConfig, plain_tree(tree), "the choice")
        refuse_faults(self._faults(choice))
        table_widths(self.schema, choice.embedding_dim, choice.field_dims)
        macs = self._macs(choice)
        if not self._fits(choice):
            raise ConfigError(f"the choice takes {macs:,} multiply-adds; allowed: max_macs = {self.config.max_macs:,}")
        return choice

    def size(self) -> SpaceSize:
        """Count the space exactly."""
        menu, numbers = self.menu, range(1, self.config.num_blocks + 1)
        per_block = len(menu.dense_ops) * len(menu.sparse_ops) * len(menu.dense_widths) * len(menu.token_counts)
        network = len(menu.layer_norms) * len(menu.flat_tokens) * max(1, len(menu.field_dims)) ** len(self._tables)
        published, sampled, gates = network, network, 1
        for number in numbers:
            published *= per_block * 2 ** (2 * number)
            sets = sum(comb(number, inputs) for inputs in range(1, min(number, self.config.max_inputs) + 1))
            sampled *= per_block * 4 * sets**2
            gates *= number**2
        return SpaceSize(published, sampled, sampled * gates)

    def _macs(self, choice: NASRecConfig) -> int:
        return count(choice, self.schema.num_dense_inputs, len(self.schema.ids)).macs

    def _fits(self, choice: NASRecConfig) -> bool:
        return self.config.max_macs is None or self._macs(choice) <= self.config.max_macs

    def _draw(self, random: Random, full_share: float) -> NASRecConfig:
        all_inputs = random.random() < full_share
        blocks = tuple(
            self._draw_block(number, random, all_inputs, full_width=random.random() < full_share)
            for number in range(1, self.config.num_blocks + 1)
        )
        return NASRecConfig(
            embedding_dim=self.config.embedding_dim,
            layer_norm=random.choice(self.menu.layer_norms),
            field_dims=self._draw_fields(random),
            flat_tokens=max(self.menu.flat_tokens) if all_inputs else self._draw_flat_tokens(random),
            blocks=blocks,
        )

    def _draw_block(self, number: int, random: Random, all_inputs: bool, full_width: bool) -> BlockChoice:
        dense_width, num_tokens = random.choice(self.menu.dense_widths), random.choice(self.menu.token_counts)
        dense_to_sparse, fm = random.random() < 0.5, random.random() < 0.5
        if full_width:
            dense_width, num_tokens = max(self.menu.dense_widths), max(self.menu.token_counts)
            dense_to_sparse = fm = True
        return BlockChoice(
            dense_op=random.choice(self.menu.dense_ops),
            sparse_op=random.choice(self.menu.sparse_ops),
            dense_width=dense_width,
            num_tokens=num_tokens,
            dense_inputs=self._draw_inputs(number, random, all_inputs),
            sparse_inputs=self._draw_inputs(number, random, all_inputs),
            left=random.randrange(number),
            right=random.randrange(number),
            dense_to_sparse=dense_to_sparse,
            fm=fm,
        )

    def _draw_inputs(self, number: int, random: Random, all_inputs: bool) -> tuple[int, ...]:
        most = min(number, self.config.max_inputs)
        size = most if all_inputs else 1 + sum(random.random() < 0.5 for _ in range(most - 1))
        return tuple(sorted(random.sample(range(number), size)))

    def _draw_flat_tokens(self, random: Random) -> bool:
        # Menus with one value draw no random number for it: their samples are those of the published space.
        values = self.menu.flat_tokens
        return random.choice(values) if len(values) > 1 else max(values)

    def _draw_fields(self, random: Random) -> tuple[int, ...] | None:
        if not self.menu.field_dims:
            return None
        widths = {table: random.choice(self.menu.field_dims) for table in self._tables}
        return tuple(widths[feature.table_name] for feature in self.schema.ids)

    def _mutated(self, choice: NASRecConfig, random: Random) -> NASRecConfig:
        """Change the choice once, as NASRec does; perhaps into itself."""
        places: list[int | str] = list(range(len(choice.blocks)))
        places += ["layer_norm"] if len(self.menu.layer_norms) > 1 else []
        places += ["flat_tokens"] if len(self.menu.flat_tokens) > 1 else []
        places += ["field_dims"] if len(self.menu.field_dims) > 1 else []
        place = random.choice(places)
        if place == "layer_norm":
            return choice.model_copy(update={"layer_norm": random.choice(self.menu.layer_norms)})
        if place == "flat_tokens":
            return choice.model_copy(update={"flat_tokens": self._draw_flat_tokens(random)})
        if place == "field_dims":
            return choice.model_copy(update={"field_dims": self._one_field(choice, random)})
        assert isinstance(place, int)
        block = self._mutated_block(choice.blocks[place], place + 1, random)
        return choice.model_copy(update={"blocks": (*choice.blocks[:place], block, *choice.blocks[place + 1 :])})

    def _mutated_block(self, block: BlockChoice, number: int, random: Random) -> BlockChoice:
        if random.random() < 0.5:
            field = random.choice(("dense_inputs", "sparse_inputs", "left", "right"))
            if field in ("left", "right"):
                return block.model_copy(update={field: random.randrange(number)})
            size = random.randint(1, min(number, self.config.max_inputs))
            return block.model_copy(update={field: tuple(sorted(random.sample(range(number), size)))})
        field = random.choice(("operators", "dense_width", "num_tokens", "dense_to_sparse", "fm"))
        if field == "operators":
            operators = {
                "dense_op": random.choice(self.menu.dense_ops),
                "sparse_op": random.choice(self.menu.sparse_ops),
            }
            return block.model_copy(update=operators)
        if field in ("dense_to_sparse", "fm"):
            return block.model_copy(update={field: random.random() < 0.5})
        sizes = self.menu.dense_widths if field == "dense_width" else self.menu.token_counts
        return block.model_copy(update={field: random.choice(sizes)})

    def _one_field(self, choice: NASRecConfig, random: Random) -> tuple[int, ...]:
        table, width = random.choice(self._tables), random.choice(self.menu.field_dims)
        dims = choice.field_dims or (choice.embedding_dim,) * len(self.schema.ids)
        return tuple(
            width if feature.table_name == table else dim for feature, dim in zip(self.schema.ids, dims, strict=True)
        )

    @cached_property
    def _smallest_last_block(self) -> BlockChoice:
        """The block that makes the smallest network, alone behind the raw input.

        Another block before it would have to read the raw input, too, and adds to what that costs. Only where a menu
        has nothing cheaper than `dot` can one of a few tokens of a block before it be cheaper than one of all features.
        """
        menu = self.menu
        blocks = (
            BlockChoice(dense_op=dense_op, sparse_op=sparse_op, dense_width=width, num_tokens=min(menu.token_counts))
            for dense_op, sparse_op, width in product(menu.dense_ops, menu.sparse_ops, menu.dense_widths)
        )
        return min(blocks, key=lambda block: self._macs(self._alone(block)))

    def _alone(self, block: BlockChoice) -> NASRecConfig:
        return NASRecConfig(
            embedding_dim=self.config.embedding_dim,
            layer_norm=self.menu.layer_norms[0],
            flat_tokens=min(self.menu.flat_tokens),
            blocks=(block,),
        )

    def _walk(self, random: Random) -> NASRecConfig:
        """Mutate away from the smallest network: where the budget is so tight that samples do not meet it."""
        choice = self._draw(random, full_share=0.0)
        smallest = self.cheapest
        blocks = (*choice.blocks[:-1], *smallest.blocks)
        choice = choice.model_copy(update={"blocks": blocks, "flat_tokens": smallest.flat_tokens})
        for _ in range(MAX_MUTATIONS):
            choice = self.mutate(choice, random)
        return choice

    def _faults(self, choice: NASRecConfig) -> Iterator[Fault]:
        if len(choice.blocks) > self.config.num_blocks:
            yield "blocks", f"{len(choice.blocks)} blocks", f"at most {self.config.num_blocks}"
        if choice.embedding_dim != self.config.embedding_dim:
            yield "embedding_dim", choice.embedding_dim, self.config.embedding_dim
        if choice.layer_norm not in self.menu.layer_norms:
            yield "layer_norm", choice.layer_norm, self.menu.layer_norms
        if choice.flat_tokens not in self.menu.flat_tokens:
            yield "flat_tokens", choice.flat_tokens, self.menu.flat_tokens
        widths = self.menu.field_dims or (self.config.embedding_dim,)
        if choice.field_dims is None and self.config.embedding_dim not in widths:
            yield "field_dims", None, widths
        for feature, width in enumerate(choice.field_dims or ()):
            if width not in widths:
                yield f"field_dims.{feature}", width, widths
        for index, (block, use) in enumerate(zip(choice.blocks, uses_of(choice), strict=True)):
            yield from self._block_faults(f"blocks.{index}", block, use)

    def _block_faults(self, place: str, block: BlockChoice, use: Use) -> Iterator[Fault]:
        allowed: dict[str, tuple[object, ...]] = {}
        # An operator that nothing reads may have any size: the canonical form has one for all.
        if use.dense_op:
            allowed |= {"dense_op": self.menu.dense_ops, "dense_width": self.menu.dense_widths}
        if use.sparse_op:
            allowed |= {"sparse_op": self.menu.sparse_ops, "num_tokens": self.menu.token_counts}
        for key, values in allowed.items():
            if (found := getattr(block, key)) not in values:
                yield f"{place}.{key}", found, values
        for key, inputs in (("dense_inputs", block.dense_inputs), ("sparse_inputs", block.sparse_inputs)):
            if len(inputs) > self.config.max_inputs:
                yield f"{place}.{key}", inputs, f"at most {self.config.max_inputs} (max_inputs)"
