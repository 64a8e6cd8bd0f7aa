import numpy as np
import pytest

from keras_efficient.policies import (
    BackwardInduction,
    LearnedPolicy,
    SelectedExits,
    ThresholdPolicy,
    decide,
    evaluate,
    select_exits,
)


def test_data_of_some_exits(tiny):
    part = tiny.select([0, 2])
    np.testing.assert_array_equal(part.correct, tiny.correct[:, [0, 2]])
    np.testing.assert_array_equal(part.costs, [0.25, 1.0])
    np.testing.assert_array_equal(part.features, tiny.features[:, [0, 2]])
    assert part.features[0, 0, 3] == pytest.approx(1 / 3)  # the depth in the whole network
    assert part.total_cost == tiny.total_cost


def test_leaves_only_where_it_may(tiny):
    # Confidences .9/.6/.9, .6/.8/.9, .7/.7/.7, .8/.9/.6: above .75 at the first exit the first and the last input.
    policy = SelectedExits(ThresholdPolicy(0.75), [0, 2], num_exits=3)
    np.testing.assert_array_equal(decide(policy, tiny.features), [0, 2, 2, 0])
    policy = SelectedExits(ThresholdPolicy(0.75), [1, 2], num_exits=3)
    np.testing.assert_array_equal(decide(policy, tiny.features), [2, 1, 2, 1])
    assert [policy.may_leave(k) for k in range(3)] == [False, True, True]


def test_decides_as_the_policy_does_on_the_selected_exits(chain):
    data = chain[0]
    part = data.select([1, 3])
    inner = BackwardInduction.fit(part, 0.3)
    policy = SelectedExits(inner, [1, 3], num_exits=4)
    np.testing.assert_array_equal(decide(policy, data.features), np.array([1, 3])[decide(inner, part.features)])


def test_hands_on_the_trade_off(chain):
    data = chain[0]
    inner = LearnedPolicy(num_exits=2, trade_off_range=(0.02, 1.0), default_trade_off=0.3)
    policy = SelectedExits(inner, [2, 3], num_exits=4)
    assert policy.takes_trade_off
    assert policy.default_trade_off == 0.3
    prices = np.geomspace(0.02, 1, len(data), dtype="float32")
    expected = np.array([2, 3])[decide(inner, data.select([2, 3]).features, trade_off=prices)]
    np.testing.assert_array_equal(decide(policy, data.features, trade_off=prices), expected)


def test_selection_drops_rare_exits_and_keeps_the_reward(chain):
    data, test = chain
    whole = BackwardInduction.fit(data, 0.1)
    policy = select_exits(lambda part: BackwardInduction.fit(part, 0.1), data, min_share=0.15)
    shares = np.asarray(evaluate(policy, data).exit_shares)
    kept = [k for k in range(3) if policy.may_leave(k)]
    assert 0 < len(kept) < 3
    assert (shares[kept] >= 0.15).all()
    assert shares[:3].sum() == shares[kept].sum()
    assert evaluate(policy, test, 0.1).reward > evaluate(whole, test, 0.1).reward - 0.01


def test_selection_to_a_number_of_exits(chain):
    data = chain[0]
    policy = select_exits(lambda part: ThresholdPolicy.tune(part, trade_off=0.2), data, min_share=0, max_exits=2)
    assert isinstance(policy, SelectedExits)
    assert len(policy.exits) == 2
    assert policy.exits[-1] == 3
    same = select_exits(lambda part: ThresholdPolicy(0.9), data, min_share=0)
    assert isinstance(same, ThresholdPolicy)


@pytest.mark.parametrize("exits", [[3], [1, 2], [2, 1, 3], [1, 1, 3], [-1, 3], ["a", 3]])
def test_bad_exits(chain, exits):
    with pytest.raises(ValueError, match="Expected at least two increasing integers"):
        SelectedExits(ThresholdPolicy(0.9), exits, num_exits=4)
    with pytest.raises(ValueError, match="Expected at least two increasing integers"):
        chain[0].select(exits)


def test_bad_policies_and_sizes(chain):
    with pytest.raises(ValueError, match="made for 4"):
        SelectedExits(BackwardInduction.fit(chain[0], 0.3), [1, 3], num_exits=4)
    with pytest.raises(ValueError, match="Expected an exit policy"):
        SelectedExits("confidence", [1, 3], num_exits=4)
    with pytest.raises(ValueError, match="max_exits"):
        select_exits(lambda part: ThresholdPolicy(0.9), chain[0], max_exits=1)
