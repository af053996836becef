import math

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from raysparse.train.metrics import DayMetrics, normalized_entropy


def day(logits: np.ndarray, labels: np.ndarray, batch: int = 100) -> DayMetrics:
    metrics = DayMetrics(torch.device("cpu"))
    for start in range(0, len(logits), batch):
        part = slice(start, start + batch)
        values, marks = torch.from_numpy(logits[part]), torch.from_numpy(labels[part]).float()
        padding = torch.zeros(3)
        weights = torch.cat([torch.ones(len(values)), padding])
        metrics.update(torch.cat([values, padding + 5.0]), torch.cat([marks, padding + 1.0]), weights)
    return metrics


@pytest.mark.parametrize("scale", [0.01, 1.0, 8.0])
def test_a_day_agrees_with_scikit_learn(scale: float):
    generator = np.random.default_rng(1)
    logits = (generator.normal(size=5000) * scale - 1.0).astype(np.float32)
    labels = (generator.random(5000) < 1 / (1 + np.exp(-logits))).astype(np.int64)
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    found = day(logits, labels).compute()
    assert found.rows == 5000
    assert found.base_rate == pytest.approx(labels.mean(), rel=1e-12)
    assert found.log_loss == pytest.approx(log_loss(labels, probabilities), rel=1e-9)
    # Spread over a few bins only, nearly equal logits count as ties.
    assert found.auc == pytest.approx(roc_auc_score(labels, logits), abs=1e-3 if scale < 0.1 else 1e-5)
    assert found.calibration == pytest.approx(probabilities.sum() / labels.sum(), rel=1e-9)
    assert found.ne == pytest.approx(log_loss(labels, probabilities) / log_loss(labels, np.full(5000, labels.mean())))


def test_predicting_the_base_rate_has_an_ne_of_one_and_an_auc_of_a_half():
    labels = np.array([0, 0, 0, 1] * 50)
    found = day(np.full(200, math.log(1 / 3), np.float32), labels).compute()
    assert found.ne == pytest.approx(1.0, abs=1e-6)
    assert found.auc == 0.5
    assert found.calibration == pytest.approx(1.0, abs=1e-6)


def test_a_day_of_one_class_has_no_ne_and_no_auc():
    found = day(np.zeros(10, np.float32), np.zeros(10)).compute()
    assert (found.ne, found.auc, found.calibration) == (None, None, None)
    assert found.log_loss == pytest.approx(math.log(2))
    assert normalized_entropy(0.5, 1.0) is None
