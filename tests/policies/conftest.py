import numpy as np
import pytest

from keras_efficient.policies import ExitData


def _make_chain(inputs=300, exits=4, classes=5, seed=0):
    """Later exits are surer, inputs differ in difficulty, each exit has a scale of its own."""
    random = np.random.default_rng(seed)
    labels, difficulty = random.integers(0, classes, inputs), random.normal(size=inputs)
    logits = random.normal(scale=1.3, size=(inputs, exits, classes))
    for k in range(exits):
        logits[np.arange(inputs), k, labels] += 0.6 + k - 1.3 * difficulty
        logits[:, k] *= random.uniform(0.6, 1.5)
    return ExitData(logits, labels, np.linspace(1 / exits, 1.0, exits))


@pytest.fixture(scope="session")
def make_chain():
    return _make_chain


@pytest.fixture(scope="session")
def chain():
    """400 inputs to learn from and 2000 of the same kind to judge by, 4 exits."""
    data = _make_chain(2400)
    return data.take(np.arange(400)), data.take(np.arange(400, 2400))


@pytest.fixture(scope="session")
def tiny():
    """Four inputs, two classes, three exits, by hand: confidences .9/.6/.9, .6/.8/.9, .7/.7/.7, .8/.9/.6."""
    confidence = np.array([[0.9, 0.6, 0.9], [0.6, 0.8, 0.9], [0.7, 0.7, 0.7], [0.8, 0.9, 0.6]])
    correct = np.array([[1, 1, 1], [0, 1, 1], [0, 0, 1], [1, 0, 0]], dtype=bool)
    odds = np.log(confidence / (1 - confidence))
    logits = np.stack([np.where(correct, odds, 0), np.where(correct, 0, odds)], axis=-1)
    return ExitData(logits, np.zeros(4, dtype=int), np.array([0.25, 0.5, 1.0]))
