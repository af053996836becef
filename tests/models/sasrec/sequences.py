"""Random jagged sequences, and encoders of them whose weights are far enough from 0 to tell them apart."""

from collections.abc import Sequence

import torch
from torch import Tensor

from raysparse.models.sasrec.config import SASRecConfig
from raysparse.models.sasrec.encoder import SASRec

LENGTHS = (3, 1, 0, 7, 12, 2, 12, 5)


def offsets_of(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0)


def values_of(lengths: Sequence[int], width: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(sum(lengths), width, generator=generator)


def encoder_of(seed: int = 1, **keys: object) -> SASRec:
    given = {"embedding_dim": 16, "num_layers": 2, "num_heads": 2, "max_length": 12, "dropout": 0.0, **keys}
    torch.manual_seed(seed)
    encoder = SASRec(SASRecConfig.model_validate(given)).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.dim() > 1:
                parameter.mul_(10.0)
    return encoder
