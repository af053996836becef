from typing import Any

import pytest

from raysparse.errors import ConfigError
from raysparse.job import TrainJob, check_train_job

SAMPLING = {"kind": "path_sampling"}
CACHING = {"kind": "feature_cache", "folder": "cache"}
SUPERNET = {"kind": "nasrec_supernet"}
ADAGRAD = {"dense": {"kind": "adagrad"}}


def job_of(**changes: Any) -> TrainJob:
    tree = {"kind": "train", "name": "x", "run_folder": "runs/x", "data": {"path": "data/x"}, **changes}
    return check_train_job(tree, "x.yaml")


def faults(**changes: Any) -> str:
    with pytest.raises(ConfigError) as error:
        job_of(**changes)
    return str(error.value)


@pytest.mark.parametrize("kind", ["adam", "adagrad", "sgd"])
def test_a_supernet_with_its_callbacks_is_a_job(kind: str):
    job = job_of(model=SUPERNET, callbacks=[SAMPLING, CACHING], optimizer={"dense": {"kind": kind}})
    assert job.model.embedding_dim == 16


def test_a_supernet_needs_something_that_draws_its_paths():
    text = faults(model=SUPERNET, optimizer=ADAGRAD, callbacks=[CACHING])
    assert 'model.kind: found "nasrec_supernet"; allowed: only with a path_sampling in callbacks' in text


@pytest.mark.parametrize("callback", [SAMPLING, CACHING], ids=lambda callback: callback["kind"])
def test_callbacks_of_a_supernet_are_refused_for_another_model(callback: dict[str, str]):
    text = faults(callbacks=[{"kind": "row_pruning", "budget": 0.5}, callback])
    assert f'callbacks.1.kind: found "{callback["kind"]}"' in text
    assert "only with model.kind nasrec_supernet, found dlrm" in text


@pytest.mark.parametrize("callback", [SAMPLING, CACHING], ids=lambda callback: callback["kind"])
def test_a_supernet_has_one_callback_of_a_kind(callback: dict[str, str]):
    text = faults(model=SUPERNET, optimizer=ADAGRAD, callbacks=[SAMPLING, callback, callback])
    text_of_last = f'callbacks.2.kind: found "{callback["kind"]}"; allowed: another kind, since there is one'
    assert text_of_last in text
    assert text.startswith(f"x.yaml has {2 if callback is SAMPLING else 1} fault")


def test_a_space_says_which_of_its_sizes_are_wrong():
    model = {"kind": "nasrec_supernet", "space": {"dense_widths": [8, 8], "token_counts": [4]}}
    text = faults(model=model, optimizer=ADAGRAD, callbacks=[SAMPLING])
    assert "dense_widths of positive numbers, each once; found 8, 8" in text
    model = {"kind": "nasrec_supernet", "space": {"dense_ops": ["fc", "cross", "fc"]}}
    text = faults(model=model, optimizer=ADAGRAD, callbacks=[SAMPLING])
    assert "dense_ops of different values; found fc, cross, fc" in text
    model = {"kind": "nasrec_supernet", "space": {"field_dims": [8, 32]}}
    text = faults(model=model, optimizer=ADAGRAD, callbacks=[SAMPLING])
    assert "field_dims of multiples of 4 of at most embedding_dim (16); found 8, 32" in text
