"""From a network with shared weights to a choice alone."""

import torch

from raysparse.models.nasrec.canonical import canonical_order
from raysparse.models.nasrec.choice import NASRecConfig
from raysparse.models.nasrec.network import NASRec, NASRecNetwork
from raysparse.models.nasrec.projection import Projection
from raysparse.models.nasrec.sizes import sizes_of
from raysparse.models.nasrec.usage import head_columns, plain_parameters, used_projections


@torch.no_grad()
def export_subnet(network: NASRecNetwork, choice: NASRecConfig) -> NASRec:
    """Return a choice alone, with copies of the weights that it uses in a network of a larger shape."""
    raw = (network.shape.num_dense, network.shape.num_features)
    subnet = NASRec(choice, *raw).to(next(network.parameters()))
    skipped = len(network.blocks) - len(choice.blocks)
    places = (0, *(skipped + number for number in canonical_order(choice)))
    for used in used_projections(subnet.choice, [str(place) for place in places], raw):
        small = subnet.network.get_submodule(f"blocks.{used.number - 1}.{used.module}")
        large = network.get_submodule(f"blocks.{places[used.number] - 1}.{used.module}")
        assert isinstance(small, Projection)
        assert isinstance(large, Projection)
        small.take(large, used.columns)
    for place, block in zip(places[1:], subnet.network.blocks, strict=True):
        for name, parameter in plain_parameters(block).items():
            parameter.copy_(network.get_parameter(f"blocks.{place - 1}.{name}"))
    subnet.network.logit.take(network.logit, head_columns(sizes_of(subnet.choice, *raw)[-1]))
    return subnet
