import itertools

import numpy as np
import pytest

from keras_efficient.policies import (
    ExitPolicy,
    ThresholdPolicy,
    best_fixed_exit,
    decide,
    evaluate,
    evaluate_exits,
    oracle,
    paired_bootstrap,
)


def test_decide_takes_the_first_exit_that_is_sure_enough(tiny):
    np.testing.assert_array_equal(decide(ThresholdPolicy(0.75), tiny.features), [0, 1, 2, 0])
    np.testing.assert_array_equal(decide(ThresholdPolicy(2.0), tiny.features), [2, 2, 2, 2])
    np.testing.assert_array_equal(decide(ThresholdPolicy(-1.0), tiny.features), [0, 0, 0, 0])


def test_a_score_of_zero_goes_on(tiny):
    class Zero(ExitPolicy):
        def call(self, features, exit_index):
            return features[:, 0] * 0

    assert set(decide(Zero(), tiny.features)) == {2}


def test_evaluate_by_hand(tiny):
    result = evaluate(ThresholdPolicy(0.75), tiny, trade_off=0.4)
    assert result.accuracy == 1.0
    assert result.cost == pytest.approx((0.25 + 0.5 + 1.0 + 0.25) / 4)
    assert result.reward == pytest.approx(1 - 0.4 * 0.5)
    assert result.exit_shares == (0.5, 0.25, 0.25)
    assert evaluate(ThresholdPolicy(0.75), tiny).reward is None


def test_best_fixed_exit_and_oracle(tiny):
    exit_index, result = best_fixed_exit(tiny, 0.1)  # accuracies .5, .5, .75
    assert (exit_index, result.accuracy, result.cost) == (2, 0.75, 1.0)
    assert best_fixed_exit(tiny, 1.0)[0] == 0
    best = max(
        evaluate_exits(np.array(exits), tiny, 0.4).reward for exits in itertools.product(range(3), repeat=len(tiny))
    )
    assert oracle(tiny, 0.4).reward == pytest.approx(best)


@pytest.mark.parametrize("exits", [[0, 1], [0, 0, 0, 3], [0, 0, 0, -1], [0.0, 0.0, 0.0, 0.0]])
def test_bad_exits(tiny, exits):
    with pytest.raises(ValueError, match="`exit_index`.*Expected 4 integers in \\[0, 3\\)"):
        evaluate_exits(np.array(exits), tiny)


def test_bad_features():
    with pytest.raises(ValueError, match="`features`.*Expected shape"):
        decide(ThresholdPolicy(), np.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"`features`. Expected \[batch, 4\].*ThresholdPolicy.*Received: \(2, 3\)"):
        ThresholdPolicy()(np.zeros((2, 3), "float32"), exit_index=0)


def test_paired_bootstrap_of_a_small_sample_is_the_exact_distribution(tiny):
    # Leaving above .75 takes exits 0, 1, 2, 0, all right, for .5; at once, exit 0, two of four right, for .25.
    # Differences at trade-off .4: 0, 1 - .1, 1 - .3, 0, mean .4.
    mean, low, high = paired_bootstrap(ThresholdPolicy(0.75), ThresholdPolicy(-1.0), tiny, 0.4, samples=40_000)
    assert mean == pytest.approx(0.4)
    draws = [np.mean(draw) for draw in itertools.product([0, 0.9, 0.7, 0], repeat=4)]
    np.testing.assert_allclose([low, high], np.quantile(draws, [0.025, 0.975]), atol=0.03)
    assert paired_bootstrap(ThresholdPolicy(0.75), ThresholdPolicy(0.75), tiny, 0.4) == (0, 0, 0)


def test_paired_bootstrap_covers_the_true_difference(make_chain):
    one, other = ThresholdPolicy(0.8), ThresholdPolicy(0.6)
    everything = make_chain(60_000)
    truth = evaluate(one, everything, 0.3).reward - evaluate(other, everything, 0.3).reward
    intervals = [
        paired_bootstrap(one, other, everything.take(np.arange(300 * i, 300 * (i + 1))), 0.3, samples=400)
        for i in range(100)
    ]
    covered = sum(low <= truth <= high for _, low, high in intervals)
    assert 87 <= covered <= 100  # 95 expected, deviation 2.2


@pytest.mark.parametrize(("argument", "value"), [("samples", 0), ("confidence", 1.5), ("trade_off", -1.0)])
def test_bad_arguments_of_the_bootstrap(tiny, argument, value):
    with pytest.raises(ValueError, match=f"`{argument}`.*Expected.*Received"):
        paired_bootstrap(ThresholdPolicy(), ThresholdPolicy(), tiny, **{"trade_off": 0.3, argument: value})
