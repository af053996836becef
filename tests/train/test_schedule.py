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


def test_a_decay_without_a_number_of_steps_ends_with_the_run():
    config = ScheduleConfig(kind="linear", warm_up_steps=2, decay_steps=None, final_factor=0.0).over(12)
    assert [learning_rate_factor(config, step) for step in (2, 7, 12)] == pytest.approx([1.0, 0.5, 0.0])
    assert ScheduleConfig(decay_steps=7).over(100) == ScheduleConfig(decay_steps=7)
    # A run that is over before its warm-up has nothing to decay over.
    assert ScheduleConfig(kind="cosine", warm_up_steps=20, decay_steps=None).over(12).decay_steps == 1
