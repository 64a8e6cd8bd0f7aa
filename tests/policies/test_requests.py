"""What a request brings with it: a trade-off, a cap; and whether a policy fits a network."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_efficient.policies import (
    BackwardInduction,
    ExitData,
    ExitPolicy,
    LearnedPolicy,
    ThresholdPolicy,
    cap_for_deadline,
    check_fits,
    decide,
    evaluate,
)


@keras.saving.register_keras_serializable(package="keras_efficient_tests")
class Dearer(ExitPolicy):
    """Leaves where confidence is above 1 - trade-off."""

    def call(self, features, exit_index, trade_off):
        return features[:, 0] + trade_off - 1


def test_the_trade_off_is_an_input_of_each_decision(tiny):
    policy = Dearer(trade_off_range=(0.05, 0.8))
    assert policy.takes_trade_off
    assert not ThresholdPolicy().takes_trade_off
    assert policy.default_trade_off == pytest.approx(0.2)  # the geometric mean
    np.testing.assert_array_equal(decide(policy, tiny.features), [0, 2, 2, 1])  # above .8
    np.testing.assert_array_equal(decide(policy, tiny.features, 0.25), [0, 1, 2, 0])
    np.testing.assert_array_equal(decide(policy, tiny.features, [0.25, 0.5, 0.05, 0.15]), [0, 0, 2, 1])
    np.testing.assert_array_equal(decide(policy, tiny.features, 100.0), [0, 0, 0, 0])  # as .8
    np.testing.assert_array_equal(decide(policy, tiny.features, 0.0), [2, 2, 2, 2])  # as .05
    np.testing.assert_allclose(
        policy(tiny.features[:, 0], exit_index=0, trade_off=np.float32(0.3)), [0.2, -0.1, 0, 0.1], atol=1e-6
    )
    assert evaluate(policy, tiny, 0.25).accuracy == 1.0


def test_a_policy_of_one_trade_off_leaves_it_unread_but_decide_refuses(tiny):
    score = ThresholdPolicy(0.75)(tiny.features[:, 0], exit_index=0, trade_off=np.ones(4, "float32"))
    np.testing.assert_allclose(score, tiny.features[:, 0, 0] - 0.75)
    with pytest.raises(ValueError, match="`trade_off`. Expected None, because the policy was made for one"):
        decide(ThresholdPolicy(), tiny.features, 0.3)


@pytest.mark.parametrize("bad", [-0.1, np.nan, "much", [0.1, 0.2], np.ones((4, 1))])
def test_bad_trade_offs(tiny, bad):
    with pytest.raises(ValueError, match="`trade_off`. Expected a finite number of at least 0, or 4.*Received"):
        decide(Dearer(trade_off_range=(0.1, 1.0)), tiny.features, bad)


@settings(max_examples=60, deadline=None)
@given(st.floats(-1, 2), st.data())
def test_no_score_breaks_the_cap(threshold, data):
    features = np.random.default_rng(0).uniform(size=(7, 5, 4)).astype("float32")
    cap = data.draw(st.one_of(st.integers(0, 4), st.lists(st.integers(0, 4), min_size=7, max_size=7)))
    free = decide(ThresholdPolicy(threshold), features)
    np.testing.assert_array_equal(decide(ThresholdPolicy(threshold), features, max_exit=cap), np.minimum(free, cap))


@pytest.mark.parametrize("bad", [-1, 3, 1.0, [0, 1], [0, 1, 2, 3]])
def test_bad_caps(tiny, bad):
    with pytest.raises(ValueError, match=r"`max_exit`. Expected an integer in \[0, 3\), or 4 of them.*Received"):
        decide(ThresholdPolicy(), tiny.features, max_exit=bad)


def test_cap_for_deadline():
    costs = [120.0, 300.0, 1000.0]
    assert [cap_for_deadline(costs, deadline) for deadline in (120, 299.9, 300, 1e9)] == [0, 0, 1, 2]
    with pytest.raises(
        ValueError, match="`deadline`. Expected at least 120, the cost of the first exit. Received: 119"
    ):
        cap_for_deadline(costs, 119)
    with pytest.raises(ValueError, match="`deadline`.*Received: nan"):
        cap_for_deadline(costs, float("nan"))
    with pytest.raises(ValueError, match="`costs`. Expected increasing.*Received"):
        cap_for_deadline([2, 1], 3)


def test_check_fits():
    check_fits(ThresholdPolicy(), 5, 12)  # reads the first four
    check_fits(LearnedPolicy(num_exits=3, num_features=6), 3, 6)
    check_fits(keras.layers.Dense(1), 3)
    with pytest.raises(ValueError, match="`policy`.*network's 4 exits. Received: LearnedPolicy 'early' made for 3"):
        check_fits(LearnedPolicy(num_exits=3, name="early"), 4)
    with pytest.raises(ValueError, match="`policy`.*network's 8 features, or on the first 4.*made for 6"):
        check_fits(LearnedPolicy(num_exits=3, num_features=6), 3, 8)


def test_decide_refuses_what_does_not_fit(tiny):
    with pytest.raises(ValueError, match="`policy`.*network's 3 exits"):
        decide(BackwardInduction(num_exits=4), tiny.features)
    with pytest.raises(ValueError, match="`policy`.*network's 4 features"):
        decide(LearnedPolicy(num_exits=3, num_features=5), tiny.features)


@pytest.mark.parametrize("kind", ["hinge", "step", "threshold"])
def test_policies_of_four_features_read_the_first_four(chain, kind):
    data = chain[0]
    noise = np.random.default_rng(1).normal(size=(len(data), 4, 3))
    wide = ExitData(data.logits, data.labels, data.costs, noise)
    policy = ThresholdPolicy(0.7) if kind == "threshold" else BackwardInduction.fit(data, 0.3, basis=kind)
    np.testing.assert_array_equal(decide(policy, wide.features), decide(policy, data.features))


def test_backward_induction_uses_a_summary(chain):
    held_out, test = chain

    def with_answers(data):  # a summary that knows whether the exit is right
        return ExitData(data.logits, data.labels, data.costs, data.correct[..., None])

    policy = BackwardInduction.fit(with_answers(held_out), 0.3)
    assert policy.num_features == 5
    better = evaluate(policy, with_answers(test), 0.3).reward
    assert better > evaluate(BackwardInduction.fit(held_out, 0.3), test, 0.3).reward + 0.03


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("num_features", 3),
        ("trade_off_range", (0.0, 1.0)),
        ("trade_off_range", (1.0, 0.1)),
        ("trade_off_range", (0.1,)),
        ("trade_off_range", 0.1),
        ("default_trade_off", 0.5),
    ],
)
def test_bad_arguments(argument, value):
    with pytest.raises(ValueError, match=f"`{argument}`.*Expected.*Received"):
        ExitPolicy(**{argument: value})


def test_the_default_lies_in_the_range():
    assert ExitPolicy(trade_off_range=(0.1, 1.0), default_trade_off=0.5).default_trade_off == 0.5
    with pytest.raises(ValueError, match=r"`default_trade_off`.*in \[0.1, 1\]. Received: 2"):
        ExitPolicy(trade_off_range=(0.1, 1.0), default_trade_off=2)
