import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_efficient.policies import (
    BackwardInduction,
    ExitData,
    best_fixed_exit,
    decide,
    evaluate,
    oracle,
    trade_off_for_budget,
)
from keras_efficient.policies.ridge import CrossFittedRidge


def test_score_by_hand():
    policy = BackwardInduction(num_exits=3, num_knots=1)
    policy.build((None, 4))
    policy.knots.assign(np.array([[[0.2], [0.0], [0.0], [0.0]], [[0.5], [0.5], [0.0], [0.0]]]))
    policy.kernel.assign(np.array([[[2.0], [-1.0], [0.0], [0.0]], [[1.0], [1.0], [0.0], [0.0]]]))
    policy.offset.assign(np.array([-0.5, 0.1]))
    features = np.array([[0.6, 0.1, 0.9, 0.3], [0.1, 0.7, 0.9, 0.3]], "float32")
    np.testing.assert_allclose(policy(features, exit_index=0), [2 * 0.4 - 0.1 - 0.5, -0.7 - 0.5], atol=1e-6)
    np.testing.assert_allclose(policy(features, exit_index=1), [0.1 + 0.1, 0.2 + 0.1], atol=1e-6)
    np.testing.assert_array_equal(policy(features, exit_index=2), [1, 1])


def test_steps_by_hand(tiny):
    # Two bins of confidence per exit, split at the medians .75, .75, .8; trade-off .4.
    # Exit 0: high = inputs 0, 3 (both right): .9; low = 1, 2 (both wrong): -.1.
    # Exit 1: high = 1, 3 (one right): .3; low = 0, 2 (one right): .3.
    # Exit 2: high = 0, 1 (both right): .6; low = 2, 3 (one right): .1. From exit 1 both bins reach each once: .35 > .3.
    policy = BackwardInduction.fit(tiny, 0.4, num_knots=1, basis="step")
    np.testing.assert_allclose(policy(tiny.features[:, 0], exit_index=0), [0.55, -0.45, -0.45, 0.55], atol=1e-6)
    np.testing.assert_allclose(policy(tiny.features[:, 1], exit_index=1), [-0.05] * 4, atol=1e-6)
    np.testing.assert_array_equal(decide(policy, tiny.features), [0, 2, 2, 0])


@pytest.mark.parametrize("basis", ["hinge", "step"])
def test_beats_every_fixed_exit_on_new_data(chain, basis):
    held_out, test = chain
    for trade_off in (0.1, 0.3, 0.6):
        reward = evaluate(BackwardInduction.fit(held_out, trade_off, basis=basis), test, trade_off).reward
        assert best_fixed_exit(test, trade_off)[1].reward < reward <= oracle(test, trade_off).reward


@pytest.mark.parametrize("basis", ["hinge", "step"])
def test_trade_off_extremes(chain, basis):
    held_out, test = chain
    assert evaluate(BackwardInduction.fit(held_out, 1e3, basis=basis), test).exit_shares[0] == 1
    free = evaluate(BackwardInduction.fit(held_out, 0.0, basis=basis), test)
    assert free.accuracy >= test.correct[:, -1].mean() - 0.01
    assert free.cost > 0.8


@settings(max_examples=15, deadline=None)
@given(st.sampled_from([2, 7, 60]), st.sampled_from([2, 4]), st.floats(0, 5), st.integers(0, 1000))
def test_any_data_gives_finite_scores_and_shares_that_sum_to_one(inputs, exits, trade_off, seed):
    random = np.random.default_rng(seed)
    logits = random.normal(size=(inputs, exits, 3)) * random.choice([0.0, 1.0, 50.0])
    data = ExitData(logits, random.integers(0, 3, inputs), np.linspace(0.2, 1, exits))
    for basis in ("hinge", "step"):
        policy = BackwardInduction.fit(data, trade_off, basis=basis, num_knots=4)
        result = evaluate(policy, data, trade_off)
        assert sum(result.exit_shares) == pytest.approx(1)
        assert result.reward <= oracle(data, trade_off).reward + 1e-9
        assert all(np.isfinite(np.asarray(weight)).all() for weight in policy.weights)


def test_fit_is_seeded(chain):
    weights = [BackwardInduction.fit(chain[0], 0.3, seed=seed).get_weights() for seed in (0, 0, 1)]
    assert all(np.array_equal(a, b) for a, b in zip(weights[0], weights[1], strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(weights[0], weights[2], strict=True))


def test_trade_off_for_budget(chain):
    held_out, _ = chain
    for budget in (0.4, 0.7):
        trade_off = trade_off_for_budget(held_out, budget)
        assert evaluate(BackwardInduction.fit(held_out, trade_off), held_out).cost <= budget
        assert evaluate(BackwardInduction.fit(held_out, 0.9 * trade_off), held_out).cost > budget - 0.05
    assert trade_off_for_budget(held_out, 1.0) == 0
    with pytest.raises(ValueError, match="`budget`.*0.25, and 1.*0.1"):
        trade_off_for_budget(held_out, 0.1)


def test_a_new_policy_never_leaves_early(tiny):
    assert set(decide(BackwardInduction(num_exits=3), tiny.features)) == {2}


def test_ridge_finds_a_line_and_ignores_constant_columns():
    random = np.random.default_rng(0)
    columns = np.column_stack([random.normal(size=200), np.full(200, 3.0)])
    targets = 2 * columns[:, 0] - 1 + random.normal(scale=1e-3, size=200)
    weights, offset, unseen = CrossFittedRidge(columns, np.arange(200) % 5).fit(targets)
    np.testing.assert_allclose([*weights, offset], [2, 0, -1], atol=1e-3)
    np.testing.assert_allclose(unseen, targets, atol=0.01)


@pytest.mark.parametrize(
    ("argument", "value"), [("num_exits", 1), ("num_exits", 2.0), ("num_knots", 0), ("basis", "spline")]
)
def test_bad_arguments(argument, value):
    with pytest.raises(ValueError, match=f"`{argument}`.*Expected.*Received: {value!r}"):
        BackwardInduction(**{"num_exits": 3, argument: value})


def test_bad_data_and_exits(tiny):
    with pytest.raises(ValueError, match="`data`.*at least two inputs"):
        BackwardInduction.fit(tiny.take([0]), 0.3)
    with pytest.raises(ValueError, match="`trade_off`"):
        BackwardInduction.fit(tiny, -0.3)
    with pytest.raises(ValueError, match="`exit_index`.*\\[0, 3\\)"):
        BackwardInduction(num_exits=3)(tiny.features[:, 0], exit_index=3)
