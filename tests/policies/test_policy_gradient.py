import warnings

import keras
import numpy as np
import pytest

from keras_efficient.policies import ExitData, PolicyGradient, ThresholdPolicy, best_fixed_exit, decide, evaluate
from keras_efficient.policies.policy_gradient import log_exit_shares
from keras_efficient.policies.training import warn_if_useless


def test_exit_shares_by_hand():
    h = np.array([[0.5, 0.25], [0.9, 0.2]])
    shares = np.exp(keras.ops.convert_to_numpy(log_exit_shares(np.log(h / (1 - h)).astype("float32"))))
    expected = [
        [[0.5, 0.125, 0.375], [0, 0.25, 0.75], [0, 0, 1]],
        [[0.9, 0.02, 0.08], [0, 0.2, 0.8], [0, 0, 1]],
    ]
    np.testing.assert_allclose(shares, expected, atol=1e-6)


def test_exit_shares_sum_to_one_and_stay_finite():
    scores = np.random.default_rng(0).normal(scale=30, size=(50, 8)).astype("float32")
    logs = keras.ops.convert_to_numpy(log_exit_shares(scores))
    assert np.isfinite(logs).all()
    np.testing.assert_allclose(np.exp(logs).sum(axis=-1), 1, atol=1e-5)
    assert np.exp(logs)[:, np.tril_indices(9, -1)[0], np.tril_indices(9, -1)[1]].max() == pytest.approx(0, abs=1e-30)


def test_beats_the_best_fixed_exit(chain, capsys):
    held_out, test = chain
    trainer = PolicyGradient(0.3, iterations=200)
    policy = trainer.fit(held_out)
    assert "10/10" in capsys.readouterr().out  # rounds of 20 steps
    assert list(trainer.history) == ["reward"]
    assert len(trainer.history["reward"]) == 10
    assert not policy.takes_trade_off
    assert evaluate(policy, test, 0.3).reward > best_fixed_exit(test, 0.3)[1].reward + 0.01


def test_one_policy_for_any_trade_off(chain, tmp_path):
    held_out, test = chain
    policy = PolicyGradient(trade_off_range=(0.05, 1.0), iterations=500, verbose=0).fit(held_out)
    assert policy.trade_off_range == (0.05, 1.0)
    results = [evaluate(policy, test, price) for price in (0.05, 0.3, 1.0)]
    assert results[0].cost > results[1].cost > results[2].cost
    assert results[1].reward > best_fixed_exit(test, 0.3)[1].reward
    inputs = keras.Input((4,)), keras.Input(())
    keras.Model(inputs, policy(inputs[0], exit_index=1, trade_off=inputs[1])).save(tmp_path / "policy.keras")
    loaded = keras.saving.load_model(tmp_path / "policy.keras")
    batch = test.features[:32, 1], np.geomspace(0.05, 1, 32, dtype="float32")
    np.testing.assert_array_equal(loaded(batch), policy(batch[0], exit_index=1, trade_off=batch[1]))


def test_is_seeded_and_reads_a_summary(make_chain):
    data = make_chain(300, exits=3)
    wide = ExitData(data.logits, data.labels, data.costs, data.correct[..., None])
    policies = [
        PolicyGradient(0.3, iterations=150, verbose=0, seed=seed).fit(wide, validation=wide) for seed in (0, 0, 1)
    ]
    assert policies[0].num_features == 5
    weights = [policy.get_weights() for policy in policies]
    assert all(np.allclose(a, b, atol=1e-4) for a, b in zip(weights[0], weights[1], strict=True))
    assert not all(np.allclose(a, b, atol=1e-4) for a, b in zip(weights[0], weights[2], strict=True))
    taken = decide(policies[0], wide.features)  # the summary tells whether an exit is right
    assert data.correct[np.arange(300), taken].mean() > data.correct[:, -1].mean()


def test_a_useless_policy_is_reported(tiny):
    at_once = ThresholdPolicy(-1.0)
    with pytest.warns(UserWarning, match="earns 0.4750 .* less than the 0.6500 of always leaving at exit 2"):
        warn_if_useless(at_once, tiny, [0.1])
    with pytest.warns(UserWarning, match="of always leaving at the best exit for each trade-off"):
        warn_if_useless(at_once, tiny, [0.1, 0.2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_useless(at_once, tiny, [2.0])


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("trade_off", -1.0),
        ("trade_off_range", (0.5, 0.1)),
        ("iterations", 0),
        ("batch_size", 0),
        ("learning_rate", 0),
        ("entropy", -1),
        ("exploring_starts", 1.5),
        ("weight_decay", -1),
        ("hidden_units", ()),
        ("seed", -1),
    ],
)
def test_bad_arguments(argument, value):
    with pytest.raises(ValueError, match=f"`{argument}`.*Expected.*Received"):
        PolicyGradient(**{argument: value})


def test_validation_must_fit(tiny):
    with pytest.raises(ValueError, match="`validation`.*0.25, 0.5, 1.0.*0.1, 0.2, 1.0"):
        PolicyGradient(0.3).fit(tiny, validation=tiny.with_costs([0.1, 0.2, 1.0]))
    wide = ExitData(tiny.logits, tiny.labels, tiny.costs, np.zeros((4, 3, 2)))
    with pytest.raises(ValueError, match="`validation`. Expected 4 features, as in `data`. Received: 6"):
        PolicyGradient(0.3).fit(tiny, validation=wide)
