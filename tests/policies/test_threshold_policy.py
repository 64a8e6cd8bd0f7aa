import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_efficient.policies import ExitData, ThresholdPolicy, decide, evaluate, threshold_curve


@pytest.mark.parametrize(("measure", "column"), [("confidence", 0), ("entropy", 1), ("margin", 2)])
def test_score(measure, column, tiny):
    features = tiny.features[:, 0]
    sign = -1 if measure == "entropy" else 1
    score = np.asarray(ThresholdPolicy(0.5, measure)(features, exit_index=0))
    np.testing.assert_allclose(score, sign * (features[:, column] - 0.5), atol=1e-7)


def test_tune_by_hand(tiny):
    # Leaving when above .8 gives exits 0, 2, 2, 1: accuracy .75, cost .6875;
    # above .7: 0, 1, 2, 0: accuracy 1, cost .5; above .6: 0, 1, 0, 0: accuracy .75, cost .3125.
    policy = ThresholdPolicy.tune(tiny, budget=0.5)
    assert 0.7 <= policy.threshold < 0.8
    result = evaluate(policy, tiny)
    assert (result.accuracy, result.cost) == (1.0, 0.5)
    assert evaluate(ThresholdPolicy.tune(tiny, budget=0.4), tiny).cost == pytest.approx(0.3125)
    assert evaluate(ThresholdPolicy.tune(tiny, accuracy_drop=0), tiny).cost == pytest.approx(
        0.3125
    )  # .75 is the last's
    assert evaluate(ThresholdPolicy.tune(tiny, accuracy_drop=25), tiny).cost == 0.25
    assert evaluate(ThresholdPolicy.tune(tiny, trade_off=0.1), tiny).accuracy == 1.0


@st.composite
def exit_data(draw):
    inputs, exits, classes = draw(st.integers(1, 12)), draw(st.integers(2, 4)), draw(st.integers(2, 3))
    numbers = st.integers(-3, 3)  # few values, so that ties are common
    logits = draw(st.lists(numbers, min_size=inputs * exits * classes, max_size=inputs * exits * classes))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=inputs, max_size=inputs))
    return ExitData(np.reshape(logits, (inputs, exits, classes)), np.array(labels), np.linspace(0.3, 1, exits))


@settings(max_examples=40, deadline=None)
@given(exit_data(), st.sampled_from(["confidence", "entropy", "margin"]))
def test_curve_is_what_each_threshold_does(data, measure):
    curve = threshold_curve(data, measure)
    results = [evaluate(ThresholdPolicy(threshold, measure), data) for threshold in curve.thresholds]
    np.testing.assert_allclose(curve.accuracy, [result.accuracy for result in results])
    np.testing.assert_allclose(curve.cost, [result.cost for result in results])
    assert (np.diff(curve.cost) < 0).all()
    assert results[0].exit_shares[-1] == 1
    assert results[-1].exit_shares[0] == 1


@settings(max_examples=25, deadline=None)
@given(exit_data(), st.floats(0, 2))
def test_tune_is_at_least_as_good_as_any_threshold(data, trade_off):
    tuned = evaluate(ThresholdPolicy.tune(data, trade_off=trade_off), data, trade_off).reward
    grid = [evaluate(ThresholdPolicy(threshold), data, trade_off).reward for threshold in np.linspace(-0.1, 1, 23)]
    assert tuned >= max(grid) - 1e-9


def test_trade_off_extremes(make_chain):
    data = make_chain(200)
    assert evaluate(ThresholdPolicy.tune(data, trade_off=1e6), data).exit_shares[0] == 1
    best = threshold_curve(data).accuracy.max()
    assert evaluate(ThresholdPolicy.tune(data, trade_off=0.0), data).accuracy == pytest.approx(best)


def test_one_threshold_per_exit(tiny):
    policy = ThresholdPolicy([0.75, 0.95])
    np.testing.assert_allclose(policy(tiny.features[:, 0], exit_index=0), [0.15, -0.15, -0.05, 0.05], atol=1e-6)
    np.testing.assert_array_equal(decide(policy, tiny.features), [0, 2, 2, 0])
    np.testing.assert_array_equal(policy(tiny.features[:, 2], exit_index=2), np.ones(4))
    with pytest.raises(ValueError, match="`policy`.*network's 3 exits.*ThresholdPolicy.*made for 4"):
        decide(ThresholdPolicy([0.5, 0.5, 0.5]), tiny.features)


@settings(max_examples=25, deadline=None)
@given(exit_data(), st.sampled_from([0.0, 0.1, 0.5, 3.0]), st.sampled_from(["confidence", "entropy"]))
def test_thresholds_per_exit_earn_more_than_one_and_no_single_move_helps(data, trade_off, measure):
    one = ThresholdPolicy.tune(data, trade_off=trade_off, measure=measure)
    each = ThresholdPolicy.tune(data, trade_off=trade_off, measure=measure, per_exit=True)
    reward = evaluate(each, data, trade_off).reward
    assert reward >= evaluate(one, data, trade_off).reward - 1e-9
    for k in range(data.num_exits - 1):
        for moved in np.linspace(-0.05, 1.05, 12):
            thresholds = [*each.threshold[:k], moved, *each.threshold[k + 1 :]]
            assert evaluate(ThresholdPolicy(thresholds, measure), data, trade_off).reward <= reward + 1e-6


def test_thresholds_per_exit_within_a_budget(chain):
    held_out, test = chain
    for budget in (0.4, 0.7):
        each = ThresholdPolicy.tune(held_out, budget=budget, per_exit=True)
        result = evaluate(each, held_out)
        assert budget - 0.1 < result.cost <= budget
        assert result.accuracy >= evaluate(ThresholdPolicy.tune(held_out, budget=budget), held_out).accuracy
        assert evaluate(each, test).cost == pytest.approx(budget, abs=0.1)
    with pytest.raises(ValueError, match="`budget`.*first exit, 0.25. Received: 0.1"):
        ThresholdPolicy.tune(held_out, budget=0.1, per_exit=True)
    with pytest.raises(ValueError, match="`per_exit`.*False with `accuracy_drop`"):
        ThresholdPolicy.tune(held_out, accuracy_drop=1, per_exit=True)


@pytest.mark.parametrize("goals", [{}, {"budget": 0.5, "trade_off": 0.1}])
def test_exactly_one_goal(tiny, goals):
    with pytest.raises(ValueError, match="exactly one of the arguments `budget`, `accuracy_drop` and `trade_off`"):
        ThresholdPolicy.tune(tiny, **goals)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("budget", 0.2), ("budget", 1.5), ("accuracy_drop", -1), ("trade_off", -0.1), ("trade_off", float("nan"))],
)
def test_bad_goals(tiny, argument, value):
    with pytest.raises(ValueError, match=f"`{argument}`.*Expected.*Received: {value}"):
        ThresholdPolicy.tune(tiny, **{argument: value})


def test_bad_arguments():
    with pytest.raises(ValueError, match="`threshold`.*finite number.*nan"):
        ThresholdPolicy(float("nan"))
    with pytest.raises(ValueError, match="`threshold`.*finite number.*'high'"):
        ThresholdPolicy([0.5, "high"])
    with pytest.raises(ValueError, match="`measure`.*'confidence', 'entropy', 'margin'.*'sureness'"):
        ThresholdPolicy(0.5, "sureness")
