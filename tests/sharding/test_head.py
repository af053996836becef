from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raysparse.config import check
from raysparse.sharding.head import TrainedHead
from raysparse.sharding.optimizer import DenseOptimizerConfig
from tests.gloo import run_ranks
from tests.sharding.partly_used import (
    build,
    choices,
    loss_of,
    set_choice,
    train,
    train_and_write,
    twin_of,
    weights_of,
)

# With a smaller eps Adagrad, and more so Adam, make whole steps of the rounding errors that attention's key biases have
# for gradients.
ADAGRAD: dict[str, Any] = {"kind": "adagrad", "eps": 1e-5}
OPTIMIZERS: list[dict[str, Any]] = [ADAGRAD, {"kind": "adagrad", "eps": 1e-2}, {"kind": "sgd"}]
CLIP = 0.05


def torch_optimizer(head: nn.Module, config: dict[str, Any]) -> torch.optim.Optimizer:
    kinds = {"adam": torch.optim.AdamW, "adagrad": torch.optim.Adagrad, "sgd": torch.optim.SGD}
    options = {key: value for key, value in config.items() if key in ("eps", "weight_decay")}
    return kinds[config["kind"]](head.parameters(), lr=0.1, **options)


def step(head: nn.Module, optimizer: torch.optim.Optimizer, number: int, clip_norm: float | None) -> float:
    """One of torch's own steps on full gradients; returns the gradients' norm."""
    optimizer.zero_grad()
    loss_of(head, number).backward()
    norm = nn.utils.clip_grad_norm_(head.parameters(), clip_norm if clip_norm is not None else 1e9)
    optimizer.step()
    return float(norm)


def slice_step(trained: TrainedHead, number: int) -> None:
    trained.zero_grad()
    loss_of(trained.module, number).backward()
    trained.step()


def outside(tensor: Tensor, part: tuple[slice, ...] | None) -> Tensor:
    """The tensor with zeros where a choice uses it."""
    tensor = tensor.clone()
    if part is not None:
        tensor[part] = 0
    return tensor


@pytest.mark.parametrize("clip_norm", [None, CLIP])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_steps_on_slices_are_torchs_steps_on_full_gradients(
    one_rank: None, optimizer: dict[str, Any], clip_norm: float | None
):
    # In double precision: in single precision the bound would be that of the CPU's order of adding.
    trained = build(torch.float64, **optimizer, clip_norm=clip_norm)
    twin = twin_of(trained)
    reference = torch_optimizer(twin, optimizer)
    norms: list[float] = []
    for number, choice in enumerate(choices(12)):
        head = set_choice(trained, choice)
        before = weights_of(trained)
        slice_step(trained, number)
        twin.choices = (choice,)
        norms.append(step(twin, reference, number, clip_norm))
        parts = head.active_slices()
        for name, after in weights_of(trained).items():
            parameter = name.removeprefix("head/").removeprefix("head_optimizer/").removesuffix("/sum")
            part = parts.get(parameter)
            assert torch.equal(outside(after, part), outside(before[name], part)), f"{name} has moved where not used"
        for name, parameter in twin.named_parameters():
            torch.testing.assert_close(head.get_parameter(name), parameter, rtol=1e-9, atol=1e-9)
    assert min(norms) > CLIP  # each step was clipped, where any is


def test_adam_on_a_part_that_stays_the_same_is_torchs_on_all(one_rank: None):
    optimizer = {"kind": "adam", "weight_decay": 0.0, "eps": 0.1}
    trained = build(**optimizer)
    head, twin = set_choice(trained, choices()[0]), twin_of(trained)
    reference = torch_optimizer(twin, optimizer)
    for number in range(6):
        slice_step(trained, number)
        step(twin, reference, number, None)
    for name, parameter in twin.named_parameters():
        torch.testing.assert_close(head.get_parameter(name), parameter, rtol=1e-4, atol=1e-5)


def test_adams_moments_rest_while_a_weight_is_not_used(one_rank: None):
    first, second = choices()[:2]
    mixed, alone = build(kind="adam", eps=1e-3), build(kind="adam", eps=1e-3)
    before = set_choice(alone, first).active_slices()
    other = set_choice(alone, second).active_slices()
    own = [name for name in before if name not in other]
    assert own
    gradients: list[dict[str, Tensor]] = []
    for number in range(6):
        choice = first if number % 2 == 0 else second
        head = set_choice(mixed, choice)
        mixed.zero_grad()
        loss_of(head, number).backward()
        if choice is first:
            gradients.append({name: head.get_parameter(name).grad.clone() for name in own})  # pyright: ignore
        mixed.step()
    # As if the steps between had never been: torch's Adam on the gradients of the three steps that use the weight.
    for name in own:
        weight = nn.Parameter(alone.module.get_parameter(name).detach().clone())
        reference = torch.optim.AdamW([weight], lr=0.1, eps=1e-3, weight_decay=0.0)
        for step_gradients in gradients:
            weight.grad = step_gradients[name]
            reference.step()
        torch.testing.assert_close(mixed.module.get_parameter(name).detach(), weight.detach(), rtol=1e-4, atol=1e-5)
        part = before[name]
        assert (mixed.moments()[name]["uses"][part] == 3).all()


def test_sums_of_squares_are_torchs(one_rank: None):
    trained = build(**ADAGRAD)
    twin = twin_of(trained)
    reference = torch_optimizer(twin, ADAGRAD)
    for number, choice in enumerate(choices()):
        set_choice(trained, choice)
        slice_step(trained, number)
        twin.choices = (choice,)
        step(twin, reference, number, None)
    for name, parameter in twin.named_parameters():
        expected = reference.state[parameter]["sum"]
        torch.testing.assert_close(trained.moments()[name]["sum"], expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("optimizer", [ADAGRAD, {"kind": "sgd"}, {"kind": "adam", "eps": 1e-3}], ids=str)
def test_weight_decay_is_torchs_on_used_weights_and_none_on_others(one_rank: None, optimizer: dict[str, Any]):
    optimizer = {**optimizer, "weight_decay": 0.3}
    for number, choice in enumerate(choices()):
        trained = build(**optimizer)
        head, twin = set_choice(trained, choice), twin_of(trained)
        before = {name: parameter.detach().clone() for name, parameter in head.named_parameters()}
        slice_step(trained, number)
        step(twin, torch_optimizer(twin, optimizer), number, None)
        parts = head.active_slices()
        for name, parameter in head.named_parameters():
            part = parts.get(name)
            assert torch.equal(outside(parameter.detach(), part), outside(before[name], part))
            if part is not None:
                torch.testing.assert_close(parameter[part], twin.get_parameter(name)[part], rtol=1e-5, atol=1e-6)


@pytest.mark.multi
@pytest.mark.parametrize(
    "optimizer",
    [{"kind": "adagrad", "eps": 1e-2, "clip_norm": CLIP}, {"kind": "sgd"}, {"kind": "adam", "eps": 0.1}],
    ids=str,
)
def test_two_ranks_learn_what_one_does_and_exchange_the_used_part_alone(
    tmp_path: Path, one_rank: None, optimizer: dict[str, Any]
):
    trained = build(**optimizer)
    train(trained)
    run_ranks(2, train_and_write, str(tmp_path / "two.pt"), optimizer)
    two = torch.load(tmp_path / "two.pt")
    for name, mine in weights_of(trained).items():
        torch.testing.assert_close(two["weights"][name], mine, rtol=1e-4, atol=1e-6, msg=lambda text, n=name: n + text)
    sizes: list[int] = []
    for choice in choices():
        head = set_choice(trained, choice)
        sizes.append(sum(head.get_parameter(name)[part].numel() for name, part in head.active_slices().items()))
    assert two["exchanged"] == sizes
    assert max(sizes) < sum(parameter.numel() for parameter in trained.module.parameters()) / 2


def test_a_head_that_is_used_whole_is_stepped_by_its_optimizer(one_rank: None):
    torch.manual_seed(1)
    head = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    trained = TrainedHead(head, build(kind="adagrad", clip_norm=CLIP)._config, torch.device("cpu"))
    twin = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    twin.load_state_dict(head.state_dict())
    optimizer = torch.optim.Adagrad(twin.parameters(), lr=0.1)
    for _ in range(3):
        inputs = torch.randn(6, 3)
        trained.zero_grad()
        head(inputs).square().sum().backward()
        trained.step()
        optimizer.zero_grad()
        twin(inputs).square().sum().backward()
        assert nn.utils.clip_grad_norm_(twin.parameters(), CLIP) > CLIP
        optimizer.step()
        for mine, theirs in zip(head.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("kind", ["adam", "adagrad"])
def test_all_of_the_optimizers_state_is_loaded_to_where_the_parameters_are(one_rank: None, kind: str):
    def trained_on(device: str) -> TrainedHead:
        return TrainedHead(nn.Linear(3, 1), check(DenseOptimizerConfig, {"kind": kind}, "test"), torch.device(device))

    saved = trained_on("cpu")
    saved.module(torch.ones(2, 3)).sum().backward()
    saved.step()
    moments = saved.moments()

    def shapes(prefix: str) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        of_parameter = moments[prefix.removeprefix("head_optimizer/").removesuffix("/")]
        return {key: (tuple(value.shape), value.dtype) for key, value in of_parameter.items()}

    loaded = trained_on("meta")  # as a GPU is: another device than the one that tensors are made on
    loaded.load(lambda tensors: None, shapes)
    for name, states in loaded.moments().items():
        assert states.keys() == moments[name].keys() > {"step"}
        assert {value.device.type for value in states.values()} == {"meta"}
