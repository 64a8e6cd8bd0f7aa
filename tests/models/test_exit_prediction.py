"""Inputs that have left are dropped from the batches of later stages; held-out data are held out."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_efficient import policies
from keras_efficient.models import MultiExit
from keras_efficient.policies import ExitPolicy

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 6)).astype("float32")
Y = RNG.integers(0, 3, 50)


def array(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


@keras.saving.register_keras_serializable(package="test")
class ByPrice(ExitPolicy):
    """Leaves where the confidence is above 1 minus the trade-off."""

    def __init__(self, **kwargs):
        super().__init__(**{"trade_off_range": (0.01, 1.0), "default_trade_off": 0.5, **kwargs})

    def call(self, features, exit_index, trade_off):
        return features[:, 0] - 1.0 + trade_off


def network(policy=None, summary_units=None):
    keras.utils.set_random_seed(1)
    dense = [keras.layers.Dense(8, activation="relu", name=f"dense_{k}") for k in range(4)]
    chain = keras.Sequential([keras.Input((6,)), *dense, keras.layers.Dense(3, name="logits")])
    model = MultiExit.from_model(chain, ["dense_0", "dense_1", "dense_2"], {"summary_units": summary_units})
    model.policy = policy
    return model


@pytest.mark.parametrize("batch_size", [7, 16, 50])
@pytest.mark.parametrize("summary_units", [None, 5])
def test_equals_choosing_among_all_exits(batch_size, summary_units):
    model = network(policies.ThresholdPolicy(0.42), summary_units)
    logits, taken = model.predict_exits(X, batch_size=batch_size, verbose=0)
    data = policies.ExitData(**model.exit_data(X, Y))
    np.testing.assert_array_equal(taken, policies.decide(model.policy, data.features))
    assert len(np.unique(taken)) >= 3
    np.testing.assert_allclose(logits, data.logits[np.arange(50), taken], atol=1e-6)
    np.testing.assert_array_equal(model.predict(X, verbose=0), model.predict_exits(X, verbose=0)[0])


def test_later_stages_run_only_on_who_stays(monkeypatch):
    model = network(policies.ThresholdPolicy(0.42))
    taken = model.predict_exits(X, batch_size=5, verbose=0)[1]
    from keras_efficient.models import staged_prediction

    batches = []
    original = staged_prediction._Stage.predict_on_batch

    def counted(self, carry):
        batches.append(self.k)
        return original(self, carry)

    monkeypatch.setattr(staged_prediction._Stage, "predict_on_batch", counted)
    model.predict_exits(X, batch_size=5, verbose=0)
    reached = [int((taken >= k).sum()) for k in range(4)]
    assert [batches.count(k) for k in range(4)] == [-(-count // 5) for count in reached]
    assert batches.count(3) < batches.count(0)


def test_trade_off_and_cap_per_input():
    model = network(ByPrice())
    data = policies.ExitData(**model.exit_data(X, Y))
    prices = RNG.uniform(0.1, 0.9, 50).astype("float32")
    caps = RNG.integers(0, 4, 50)
    taken = model.predict_exits(X, verbose=0, trade_off=prices, max_exit=caps)[1]
    confidence = data.features[:, :, 0]
    leaves = confidence > 1 - prices[:, None]
    leaves[:, -1] = True
    np.testing.assert_array_equal(taken, np.minimum(leaves.argmax(axis=1), caps))
    assert np.all(model.predict_exits(X, verbose=0, max_exit=0)[1] == 0)
    default = model.predict_exits(X, verbose=0)[1]
    np.testing.assert_array_equal(default, model.predict_exits(X, verbose=0, trade_off=0.5)[1])
    with pytest.raises(ValueError, match="`max_exit`"):
        model.predict_exits(X, verbose=0, max_exit=4)
    model.policy = policies.ThresholdPolicy(0.5)
    with pytest.raises(ValueError, match="`trade_off`"):
        model.predict_exits(X, verbose=0, trade_off=0.3)


def test_data_sets_are_taken_batch_by_batch():
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 5

        def __getitem__(self, index):
            return X[10 * index : 10 * index + 10], Y[10 * index : 10 * index + 10]

    model = network(policies.ThresholdPolicy(0.42))
    logits, taken = model.predict_exits(Batches(), verbose=0)
    expected = model.predict_exits(X, verbose=0)
    np.testing.assert_allclose(logits, expected[0], atol=1e-6)
    np.testing.assert_array_equal(taken, expected[1])
    np.testing.assert_array_equal(model.predict_exits(Batches(), verbose=0, steps=2)[1], taken[:20])


def test_a_policy_for_other_exits_or_features_is_refused():
    model = network()
    with pytest.raises(ValueError, match="network's 4 exits. Received: LearnedPolicy"):
        model.policy = policies.LearnedPolicy(3)
    with pytest.raises(ValueError, match="`policy`. Expected a Keras layer"):
        model.policy = "threshold"
    with pytest.raises(ValueError, match="network's 4 features"):
        model.predict_exits(X, policy=policies.LearnedPolicy(4, num_features=9))
    assert model.policy is None


def test_held_out_data_may_not_have_trained_the_network():
    model = network()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match="3 of 10 different rows from the training data"):
        model.exit_data(X[:10], Y[:10], trained_on=X[7:30])
    model.exit_data(X[:10], Y[:10], trained_on=X[10:])
    model.fit(X[:40], Y[:40], verbose=0)
    with pytest.raises(ValueError, match="5 of 15 different rows"):
        model.exit_data(X[35:], Y[35:])
    assert model.exit_data(X[40:], Y[40:])["logits"].shape == (10, 4, 3)


def test_rows_that_a_fit_holds_out_have_not_trained_the_network():
    for arguments in ({"validation_split": 0.3}, {}):
        model = network()
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        positional = () if arguments else (None, 1, 0, None, 0.3)
        model.fit(X, Y, *positional, **({"verbose": 0} if arguments else {}), **arguments)
        assert len(model.exit_data(X[35:], Y[35:])["labels"]) == 15
        with pytest.raises(ValueError, match="1 of 16 different rows"):
            model.exit_data(X[34:], Y[34:])


def test_steps_are_batches():
    model = network(policies.ThresholdPolicy(0.42))
    assert len(model.predict(X, batch_size=8, steps=2, verbose=0)) == 16
    drawn = []

    def batches():
        for start in range(0, 50, 10):
            drawn.append(start)
            yield X[start : start + 10]

    assert len(model.predict(batches(), steps=3, verbose=0)) == 30
    assert drawn == [0, 10, 20]


def test_a_policy_that_is_replaced_is_gone():
    model = network(ByPrice())
    plain = len(model.weights)
    weight = keras.layers.Dense(2)
    weight.build((None, 3))
    holder = policies.ThresholdPolicy(0.4)
    holder.inner = weight
    model.policy = holder
    assert len(model.weights) == plain + 2
    model.trainable = True
    assert not holder.trainable
    assert not weight.trainable
    model.policy = policies.ThresholdPolicy(0.4)
    assert len(model.weights) == plain
    model.policy = None
    assert len(model.weights) == plain


def test_stages_are_compiled_once_whatever_the_policy(tmp_path, monkeypatch):
    model = network(policies.ThresholdPolicy(0.42), summary_units=5)
    traced = []
    original = MultiExit.run_stage

    def counted(self, k, *args, **kwargs):
        traced.append(k)
        return original(self, k, *args, **kwargs)

    monkeypatch.setattr(MultiExit, "run_stage", counted)
    first = model.predict_exits(X, batch_size=10, verbose=0)
    count = len(traced)
    again = model.predict_exits(X, batch_size=10, verbose=0)
    model.predict_exits(X, batch_size=10, verbose=0, policy=policies.ThresholdPolicy(0.9))
    assert len(traced) == count
    np.testing.assert_array_equal(again[0], first[0])
    model.save(tmp_path / "model.keras")  # what is compiled is no part of the file
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict_exits(X, batch_size=10, verbose=0)[0], first[0])


def test_a_policy_that_reads_the_summary():
    model = network(summary_units=5)
    keras.utils.set_random_seed(2)
    model.policy = policies.LearnedPolicy(4, num_features=9)
    data = policies.ExitData(**model.exit_data(X, Y))
    expected = policies.decide(model.policy, data.features)
    np.testing.assert_array_equal(model.predict_exits(X, verbose=0)[1], expected)
