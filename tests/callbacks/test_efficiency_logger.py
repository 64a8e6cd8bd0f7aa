import keras
import numpy as np
import pytest

from keras_efficient import cost, policies
from keras_efficient.callbacks import EfficiencyLogger
from keras_efficient.callbacks.efficiency_logger import average_bits
from keras_efficient.layers import EarlyExit, GatedConv2D, MultiBitDense
from keras_efficient.models import MultiExit

SPREAD = keras.initializers.RandomNormal(stddev=1.0, seed=3)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
X = np.random.default_rng(0).normal(size=(24, 5, 5, 2)).astype("float32")
Y = np.random.default_rng(1).integers(0, 3, 24)


def network():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((5, 5, 2)),
            GatedConv2D(8, 3, gate_kernel_initializer=SPREAD, gate_bias_initializer=SPREAD),
            EarlyExit(3),
            keras.layers.Flatten(),
            MultiBitDense(3, bits=1, group_size=72),
        ]
    )


def fit(model, logger, epochs=1):
    model.compile("sgd", LOSS)
    return model.fit(X, Y, epochs=epochs, verbose=0, batch_size=24, callbacks=[logger]).history


def test_macs_with_and_without_data():
    model = network()
    history = fit(model, EfficiencyLogger(X))
    report = cost.profile(model, X)
    assert history["expected_macs"] == [pytest.approx(report.expected_macs)]
    assert history["macs_share_of_dense"] == [pytest.approx(report.expected_macs / report.macs)]
    assert report.expected_macs < report.macs
    again = network()
    expected = cost.profile(again, X).expected_macs  # of the gates that the one batch meets
    assert fit(again, EfficiencyLogger())["expected_macs"] == [pytest.approx(expected, rel=1e-4)]


def test_average_bits():
    # 18 x 8 kernel weights, 2 x 8 gate weights and 8 x 3 of the exit at 32 bits, 72 x 3 at 1 bit
    model = network()
    assert average_bits(model) == pytest.approx((32 * (144 + 16 + 24) + 216) / (144 + 16 + 24 + 216))
    assert fit(model, EfficiencyLogger())["average_bits"] == [pytest.approx(average_bits(model))]
    assert average_bits(keras.Sequential([keras.Input((3,)), keras.layers.ReLU()])) == 0


def test_exits():
    model = MultiExit.from_model(network())
    history = fit(model, EfficiencyLogger((X, Y)))
    logits = model.predict_all(X, verbose=0)
    for name in model.exit_names:
        assert history[f"{name}_data_accuracy"] == [pytest.approx(np.mean(logits[name].argmax(-1) == Y))]
    assert "exit_1_share" not in history
    model.policy = policies.ThresholdPolicy(0.4)
    history = fit(model, EfficiencyLogger((X, Y)))
    chosen, taken = model.predict_exits(X, verbose=0)
    assert history["exit_1_share"] == [pytest.approx(np.mean(taken == 0))]
    assert history["exit_2_share"] == [pytest.approx(np.mean(taken == 1))]
    assert history["policy_accuracy"] == [pytest.approx(np.mean(chosen.argmax(-1) == Y))]
    assert history["expected_macs"] == [pytest.approx(cost.profile(model, X).expected_macs)]


def test_labels_of_one_column_are_class_numbers():
    model = MultiExit.from_model(network())
    flat, column = (fit(model, EfficiencyLogger((X, labels))) for labels in (Y, Y[:, None]))
    expected = model.predict_all(X, verbose=0)["exit_1"].argmax(axis=-1) == Y
    assert column["exit_1_data_accuracy"] == [pytest.approx(expected.mean())]
    assert 0 < flat["exit_1_data_accuracy"][0] < 1
    with pytest.raises(ValueError, match=r"class numbers \[N\] as labels. Received: shape \(24, 3\)"):
        EfficiencyLogger((X, np.eye(3)[Y]))


def test_every():
    assert len(fit(network(), EfficiencyLogger(every=2), epochs=4)["expected_macs"]) == 2
    with pytest.raises(ValueError, match="`every`. Expected a positive integer. Received: 0"):
        EfficiencyLogger(every=0)
