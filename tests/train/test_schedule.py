import pytest

from raysparse.train.schedule import ScheduleConfig, learning_rate_factor


def test_the_warm_up_rises_to_one():
    config = ScheduleConfig(warm_up_steps=4)
    assert [learning_rate_factor(config, step) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(("kind", "half"), [("linear", 0.6), ("cosine", 0.6)])
def test_a_decay_ends_at_the_final_factor(kind: str, half: float):
    config = ScheduleConfig.model_validate({"kind": kind, "warm_up_steps": 2, "decay_steps": 10, "final_factor": 0.2})
    assert learning_rate_factor(config, 2) == pytest.approx(1.0)
    assert learning_rate_factor(config, 7) == pytest.approx(half)
    assert learning_rate_factor(config, 500) == pytest.approx(0.2)
