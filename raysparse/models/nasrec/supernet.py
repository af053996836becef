"""The supernet of a space as a model: the weights of all its networks, of which each step uses one's."""

from typing import Literal

from torch import Tensor, nn

from raysparse.config import Config
from raysparse.models.groups import Link
from raysparse.models.nasrec.choice import BlockChoice, NASRecConfig
from raysparse.models.nasrec.menu import CTRSpaceConfig
from raysparse.models.nasrec.network import NASRecNetwork
from raysparse.models.nasrec.shape import SupernetShape, supernet_shape
from raysparse.models.nasrec.usage import Slices, union, used_slices


class NASRecSupernetConfig(Config):
    """The shared weights of all networks of a space; it needs a callback of kind `path_sampling`."""

    kind: Literal["nasrec_supernet"] = "nasrec_supernet"
    space: CTRSpaceConfig = CTRSpaceConfig()
    """What the networks may choose from."""

    @property
    def embedding_dim(self) -> int:
        """Width of a token, and of every table."""
        return self.space.embedding_dim


class NASRecSupernet(nn.Module):
    """Shared weights and the choices that use them now: `[B, I]` and `[B, F, D]` to logits `[B]`.

    The choices are set from outside, between steps, the same on all ranks: those that a step trains, of which the first
    one predicts; at first the widest path alone.
    """

    def __init__(self, config: NASRecSupernetConfig, num_dense: int, num_features: int) -> None:
        super().__init__()
        self.network = NASRecNetwork(supernet_shape(shape_of(config.space, num_dense, num_features)))
        self.choices: tuple[NASRecConfig, ...] = (widest_path(config.space),)
        self.links: dict[str, Link] = {}

    def forward(self, dense: Tensor, pooled: Tensor, choice: NASRecConfig | None = None) -> Tensor:
        """Return the logits `[B]` of a choice; None: of the first one of those that are set."""
        return self.network(dense, pooled, self.choices[0] if choice is None else choice)

    def active_slices(self) -> dict[str, Slices]:
        """Return by name the part of each parameter that gets a gradient under the choices."""
        used = union([used_slices(self.network, choice) for choice in self.choices])
        return {f"network.{name}": part for name, part in used.items()}


def shape_of(space: CTRSpaceConfig, num_dense: int, num_features: int) -> SupernetShape:
    """Return the shape of a supernet that holds weights for every choice of a space."""
    menu = space.choices
    return SupernetShape(
        num_dense=num_dense,
        num_features=num_features,
        embedding_dim=space.embedding_dim,
        num_blocks=space.num_blocks,
        dense_width=max(menu.dense_widths),
        num_tokens=max(menu.token_counts),
        dense_ops=menu.dense_ops,
        sparse_ops=menu.sparse_ops,
        layer_norms=menu.layer_norms,
        flat_tokens=menu.flat_tokens,
    )


def widest_path(space: CTRSpaceConfig) -> NASRecConfig:
    """Return the network of a space with its menu's first operators at full width, and the nearest inputs."""
    menu = space.choices
    blocks = tuple(
        BlockChoice(
            dense_op=menu.dense_ops[0],
            sparse_op=menu.sparse_ops[0],
            dense_width=max(menu.dense_widths),
            num_tokens=max(menu.token_counts),
            dense_inputs=tuple(range(max(0, number - space.max_inputs), number)),
            sparse_inputs=tuple(range(max(0, number - space.max_inputs), number)),
            dense_to_sparse=True,
            fm=True,
        )
        for number in range(1, space.num_blocks + 1)
    )
    return NASRecConfig(
        embedding_dim=space.embedding_dim,
        layer_norm=menu.layer_norms[0],
        flat_tokens=max(menu.flat_tokens),
        blocks=blocks,
    )
