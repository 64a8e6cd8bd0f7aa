import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_efficient.policies import ExitData
from keras_efficient.policies.label_posterior import _likelihood, _pool_weights, expected_correct


def softmax(logits):
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def make_logits(inputs, exits=3, classes=4, seed=0, scale=1.0):
    """Exits that are independent given the label and calibrated: the right pool is their product."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, inputs)
    strength = scale * (0.5 + np.arange(exits))
    logits = random.normal(size=(inputs, exits, classes)) * strength[:, None]
    logits[np.arange(inputs), :, labels] += strength**2
    return logits.astype("float32"), labels


def test_weights_of_independent_calibrated_exits_are_one():
    # Gaussian noise of deviation s on a signal of height s^2: the logits themselves are the log-likelihood ratios.
    logits, labels = make_logits(20_000)
    np.testing.assert_allclose(_pool_weights(logits, labels), [1, 1, 1], atol=0.08)
    expected = softmax(logits.sum(axis=1))
    answers = np.take_along_axis(expected, logits.argmax(axis=-1), axis=1)
    np.testing.assert_allclose(expected_correct(logits, labels), answers, atol=0.05)


def test_derivatives_are_those_of_the_likelihood():
    logits, labels = make_logits(40)
    prior, weights, step = np.array([0, 0, 1.0]), np.array([0.3, -0.2, 0.9]), 1e-5
    _, gradient, curvature = _likelihood(logits, labels, weights, prior)
    for i, away in enumerate(np.eye(3) * step):
        up, down = (_likelihood(logits, labels, weights + sign * away, prior) for sign in (1, -1))
        assert gradient[i] == pytest.approx((up[0] - down[0]) / (2 * step), rel=1e-5)
        np.testing.assert_allclose(curvature[i], (up[1] - down[1]) / (2 * step), rtol=1e-4, atol=1e-4)


def test_chunks_do_not_matter(monkeypatch):
    logits, labels = make_logits(50)
    whole = expected_correct(logits, labels)
    monkeypatch.setattr("keras_efficient.policies.label_posterior._CHUNK", 7)
    np.testing.assert_allclose(expected_correct(logits, labels), whole, atol=1e-8)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 30), st.integers(2, 4), st.integers(2, 5), st.floats(0, 200), st.integers(0, 1000))
def test_any_logits_give_probabilities(inputs, exits, classes, scale, seed):
    random = np.random.default_rng(seed)
    logits = (scale * random.normal(size=(inputs, exits, classes))).astype("float32")
    found = expected_correct(logits, random.integers(0, classes, inputs))
    assert found.shape == (inputs, exits)
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-9


def test_smoothed_correct_is_steadier_and_as_right_on_average():
    logits, labels = make_logits(5000, scale=0.5)
    data = ExitData(logits, labels, np.array([0.2, 0.5, 1.0]))
    np.testing.assert_allclose(data.smoothed_correct.mean(axis=0), data.correct.mean(axis=0), atol=0.01)
    gain, smoothed = data.correct[:, 1] * 1.0 - data.correct[:, 0], np.diff(data.smoothed_correct[:, :2])[:, 0]
    assert smoothed.var() < 0.8 * gain.var()
    np.testing.assert_allclose(data.rewards(0.3, smoothed=True), data.smoothed_correct - 0.3 * data.costs)
