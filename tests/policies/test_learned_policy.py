import keras
import numpy as np
import pytest

from keras_efficient.ops.context import recording
from keras_efficient.policies import BackwardInduction, LearnedPolicy
from keras_efficient.policies.learned_policy import spread_features


def test_score_by_hand():
    mean, scale = np.array([[1.0, 0, 0, 0], [0, 0, 0, 0]]), np.array([[2.0, 1, 1, 1], [1, 1, 1, 1]])
    kernel = np.array([[1.0, 0], [0, 1], [0, 0], [0, 0]])
    first_bias = np.array([[0.0, 0.5], [1.0, -5.0]])
    policy = LearnedPolicy.from_arrays(
        mean, scale, [(kernel, first_bias), (np.array([[1.0], [-2.0]]), np.array([0.1]))]
    )
    features = np.array([[1 - np.exp(-1.5), np.exp(0.25), 0, 0]], "float32")  # spread to 1.5, .25, 0, 0
    np.testing.assert_allclose(policy(features, exit_index=0), [1.0 - 2 * 0.75 + 0.1], atol=1e-6)
    np.testing.assert_allclose(policy(features, exit_index=1), [2.5 - 0 + 0.1], atol=1e-6)
    np.testing.assert_array_equal(policy(features, exit_index=2), [1])
    assert policy.hidden_units == (2,)


def test_spread_features_by_hand():
    features = np.array([[[0.9, 0.5, 0.75, 0.2, 7.0], [1.0, 0.0, 1.0, 0.4, -7.0]]], "float32")
    spread = keras.ops.convert_to_numpy(spread_features(features))
    expected = [[[np.log(10), np.log(0.5), np.log(4), 0.2, 7], [np.log(1e3), -np.log(1e3), np.log(1e3), 0.4, -7]]]
    np.testing.assert_allclose(spread, expected, rtol=1e-5)


def test_scores_of_all_exits_are_those_of_each():
    features = np.random.default_rng(0).uniform(size=(6, 4, 5)).astype("float32")
    price = np.geomspace(0.05, 1, 6, dtype="float32")
    policy = LearnedPolicy(num_exits=4, num_features=5, trade_off_range=(0.05, 1.0), hidden_units=(8, 4))
    each = [keras.ops.convert_to_numpy(policy(features[:, k], exit_index=k, trade_off=price)) for k in range(3)]
    every = keras.ops.convert_to_numpy(policy.scores(spread_features(features), price))
    np.testing.assert_allclose(every, np.stack(each, axis=1), atol=1e-5)


def test_cost_is_recorded():
    with recording() as events:
        LearnedPolicy(num_exits=3, hidden_units=[8, 4])(np.zeros((5, 4), "float32"), exit_index=1)
        BackwardInduction(num_exits=3, num_knots=6)(np.zeros((5, 4), "float32"), exit_index=1)
    assert [event.dense for event in events] == [4 * 8 + 8 * 4 + 4, 4 * 6]


@pytest.mark.parametrize(
    ("argument", "value"),
    [("num_exits", 1), ("num_exits", True), ("hidden_units", []), ("hidden_units", [0]), ("hidden_units", 32)],
)
def test_bad_arguments(argument, value):
    with pytest.raises(ValueError, match=f"`{argument}`.*Expected.*Received"):
        LearnedPolicy(**{"num_exits": 3, argument: value})


def test_bad_exit():
    with pytest.raises(ValueError, match="`exit_index`.*\\[0, 3\\)"):
        LearnedPolicy(num_exits=3)(np.zeros((1, 4), "float32"), exit_index=-1)
