import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from keras_efficient import cost, policies
from keras_efficient import ops as ke_ops
from keras_efficient.layers import EarlyExit, GatedConv2D, LayerGate, exit_features
from keras_efficient.models import MultiExit

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
PER_EXIT = 1 if keras.backend.backend() == "jax" else 15  # JAX compiles every branch anew
SPREAD = keras.initializers.RandomNormal(stddev=1.0, seed=3)
X = np.random.default_rng(0).normal(size=(40, 6, 6, 2)).astype("float32")
Y = np.random.default_rng(1).integers(0, 3, 40)


def array(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def sequential():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            EarlyExit(3),
            GatedConv2D(8, 3, activation="relu", gate_kernel_initializer=SPREAD, gate_bias_initializer=SPREAD),
            EarlyExit(3, "average_max"),
            keras.layers.Flatten(),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dense(3),
        ]
    )


def functional():
    """With skip connections, a gated layer and an exit of flat features."""
    keras.utils.set_random_seed(0)
    x = keras.Input((6, 6, 2))
    h = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    h = EarlyExit(3)(h)
    block = GatedConv2D(4, 3, padding="same", gate_kernel_initializer=SPREAD, gate_bias_initializer=SPREAD)
    h = LayerGate(block, gate_kernel_initializer=SPREAD, gate_bias_initializer="zeros")(h)
    h = keras.layers.Add()([h, keras.layers.ReLU()(h)])
    h = EarlyExit(3)(keras.layers.GlobalAveragePooling2D()(h))
    h = h + 1.0
    return keras.Model(x, keras.layers.Dense(3)(h))


NETWORKS = [sequential, functional]


def policy(threshold=0.42):
    return policies.ThresholdPolicy(threshold)


@pytest.mark.parametrize("network", NETWORKS)
def test_from_model_keeps_the_network(network):
    net = network()
    model = MultiExit.from_model(net)
    outputs = model(X)
    assert list(outputs) == ["exit_1", "exit_2", "exit_3"]
    assert model.num_exits == 3
    np.testing.assert_allclose(array(outputs["exit_3"]), array(net(X)), atol=1e-6)
    assert {id(v) for v in model.variables} == {id(v) for v in net.variables}, "layers are shared"
    assert array(MultiExit.from_model(net)(X)["exit_1"]).tolist() == array(outputs["exit_1"]).tolist(), "twice"
    assert model.name == net.name


def test_fit_gives_every_exit_the_loss_and_the_metrics():
    model = MultiExit.from_model(sequential())
    accuracy = keras.metrics.SparseCategoricalAccuracy(name="acc")
    model.compile("adam", LOSS, metrics=["accuracy", accuracy], loss_weights=[1.0, 0.5, 2.0])
    history = model.fit(X, Y, epochs=3, verbose=0, validation_data=(X, Y), sample_weight=np.ones(40)).history
    names = {f"exit_{k}_{metric}" for k in (1, 2, 3) for metric in ("loss", "accuracy", "acc")} | {"loss"}
    assert set(history) == names | {f"val_{name}" for name in names}
    assert history["loss"][-1] < history["loss"][0]

    found = model.evaluate(X, Y, batch_size=40, verbose=0, return_dict=True)
    logits = model.predict_all(X, verbose=0)
    for weight, (name, values) in zip((1.0, 0.5, 2.0), logits.items(), strict=True):
        assert found[f"{name}_accuracy"] == pytest.approx(np.mean(values.argmax(-1) == Y))
        assert found[f"{name}_acc"] == pytest.approx(found[f"{name}_accuracy"])
        assert found[f"{name}_loss"] == pytest.approx(float(LOSS(Y, values)), rel=1e-4)
        found["loss"] -= weight * found[f"{name}_loss"]
    assert found["loss"] == pytest.approx(0, abs=1e-4)


@keras.saving.register_keras_serializable(package="tests")
class ThresholdPerExit(policies.ExitPolicy):
    def __init__(self, thresholds, **kwargs):
        super().__init__(**kwargs)
        self.thresholds = thresholds

    def call(self, features, exit_index):
        return features[:, 0] - self.thresholds[exit_index]


def medians(logits):
    """About half of the inputs leave at the first exit, and half of the others at the second."""
    first, second = (array(exit_features(logits[:, k], k, 3))[:, 0] for k in range(2))
    middle = float(np.median(first))
    return ThresholdPerExit([middle, float(np.median(second[first <= middle]))])


@pytest.mark.parametrize("network", NETWORKS)
def test_masked_and_skipped_exits_agree(network):
    model = MultiExit.from_model(network())
    everything = np.stack(list(model.predict_all(X, verbose=0).values()), axis=1)
    model.policy = medians(everything)
    logits, taken = model.predict_exits(X, verbose=0)
    assert set(taken) == {0, 1, 2}, "expected inputs that between them take every exit"
    np.testing.assert_allclose(logits, everything[np.arange(40), taken], atol=1e-6)
    np.testing.assert_array_equal(model.predict(X, verbose=0), logits)
    for k in range(2):
        features = exit_features(everything[:, k], k, 3)
        leaves = array(model.policy(features, exit_index=k)) > 0
        np.testing.assert_array_equal(leaves[taken >= k], (taken == k)[taken >= k])

    some = np.concatenate([np.flatnonzero(taken == k)[:PER_EXIT] for k in range(3)])
    executed = np.zeros(40)
    with ke_ops.skipping():
        for i in some:
            with cost.counting(model) as events:
                output = model(X[i : i + 1])
            executed[i] = sum(float(array(event.executed).sum()) for event in events)
            assert array(output["exit_index"]).tolist() == [taken[i]]
            np.testing.assert_allclose(array(output["output"]), logits[i : i + 1], atol=1e-5)
    assert len({executed[some][taken[some] == k].min() for k in range(3)}) == 3
    assert cost.profile(model, X[some]).expected_macs == pytest.approx(executed[some].mean(), rel=1e-5)
    with (
        ke_ops.skipping(),
        pytest.raises(ValueError, match="Expected a batch of one input to take an exit. Received: 2"),
    ):
        model(X[:2])


def test_nothing_behind_the_exit_taken_is_computed():
    calls = []

    class Watched(keras.layers.Layer):
        def call(self, x):
            calls.append(1)
            return x

    net = keras.Sequential([keras.Input((5,)), EarlyExit(2), Watched(), keras.layers.Dense(2)])
    model = MultiExit.from_model(net)
    model.policy = policy(-1.0)
    calls.clear()
    with ke_ops.skipping():
        assert int(array(model(np.ones((1, 5), "float32"))["exit_index"])[0]) == 0
    if keras.backend.backend() == "tensorflow":  # JAX traces both branches
        assert not calls


@pytest.mark.parametrize("network", NETWORKS)
def test_saves_and_loads_bit_equal(network, tmp_path):
    model = MultiExit.from_model(network())
    model.policy = policy()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, MultiExit)
    assert loaded.policy.get_config() == model.policy.get_config()
    for name, logits in model(X).items():
        np.testing.assert_array_equal(array(loaded(X)[name]), array(logits))


def test_loads_in_a_fresh_process(tmp_path):
    model = MultiExit.from_model(functional())
    model.policy = policy()
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", X)
    np.savez(tmp_path / "expected.npz", **{name: array(logits) for name, logits in model(X).items()})
    script = """
import keras, numpy, sys
import keras_efficient
model = keras.saving.load_model(sys.argv[1] + "/model.keras")
found, expected = model(numpy.load(sys.argv[1] + "/x.npy")), numpy.load(sys.argv[1] + "/expected.npz")
assert all(numpy.array_equal(keras.ops.convert_to_numpy(found[name]), expected[name]) for name in model.exit_names)
assert model.policy.threshold == 0.42
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=300)


def test_saves_and_loads_compiled(tmp_path):
    model = MultiExit.from_model(sequential())
    model.compile("adam", LOSS, metrics=["accuracy"], loss_weights=[1.0, 1.0, 0.5])
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    expected = model.evaluate(X, Y, verbose=0, return_dict=True)
    assert loaded.evaluate(X, Y, verbose=0, return_dict=True) == pytest.approx(expected)
    for mine, theirs in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(array(theirs), array(mine))
    loaded.fit(X, Y, verbose=0)


@keras.saving.register_keras_serializable(package="tests")
class WeightedPolicy(policies.ExitPolicy):
    """A policy with weights, which come with training."""

    def build(self, shape):
        self.kernel = self.add_weight(name="kernel", shape=(4,))

    def call(self, features, exit_index):
        return ops.matmul(features, self.kernel)


def test_policy_with_weights_comes_and_goes_after_training(tmp_path):
    model = MultiExit.from_model(sequential())
    model.compile("adam", LOSS)
    model.fit(X, Y, verbose=0)
    trainable = len(model.trainable_variables)
    learned = WeightedPolicy()
    learned.build((None, 4))
    model.policy = learned
    assert len(model.trainable_variables) == trainable
    for sign, exit_index in ((1.0, 0), (-1.0, 2)):
        learned.kernel.assign([sign, 0, 0, 0])
        assert set(model.predict_exits(X, verbose=0)[1]) == {exit_index}
    model.fit(X, Y, verbose=0)
    np.testing.assert_array_equal(array(learned.kernel), [-1, 0, 0, 0])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(array(loaded.policy.kernel), [-1, 0, 0, 0])
    assert set(model.predict_exits(X, policy=policy(-1.0), verbose=0)[1]) == {0}
    model.policy = None
    assert list(model.predict(X, verbose=0)) == model.exit_names


def test_exit_costs_and_data():
    net = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(7), EarlyExit(2), keras.layers.Dense(6), keras.layers.Dense(2)]
    )
    model = MultiExit.from_model(net)
    np.testing.assert_array_equal(model.exit_costs(), [5 * 7 + 7 * 2, 5 * 7 + 7 * 2 + 7 * 6 + 6 * 2])
    data = policies.ExitData(**model.exit_data(np.ones((9, 5), "float32"), np.zeros(9, int)))
    np.testing.assert_allclose(data.costs, [49 / 103, 1])
    assert data.logits.shape == (9, 2, 2)

    gated = MultiExit.from_model(sequential())
    assert gated.exit_costs(X)[0] == gated.exit_costs()[0]
    assert gated.exit_costs(X)[-1] < gated.exit_costs()[-1] == cost.profile(gated).macs


def test_many_exits_stay_in_order():
    layers = [keras.Input((4,))]
    for _ in range(11):
        layers += [keras.layers.Dense(4), EarlyExit(2)]
    model = MultiExit.from_model(keras.Sequential([*layers, keras.layers.Dense(2)]))
    x = np.ones((3, 4), "float32")
    assert list(model.predict(x, verbose=0)) == [f"exit_{k}" for k in range(1, 13)]
    np.testing.assert_allclose(
        model.predict_all(x, verbose=0)["exit_12"], array(model.stages[-1](x * 0 + features(model, x)))
    )


def features(model, x):
    for stage in model.stages[:-1]:
        x = stage(x)
    return array(x)


def skip_around():
    x = keras.Input((4,))
    h = keras.layers.Dense(4, name="early")(x)
    e = EarlyExit(2, name="leave")(h)
    h = keras.layers.Add(name="joins")([keras.layers.Dense(4)(e), h])
    return keras.Model(x, keras.layers.Dense(2)(h), name="net")


def input_again():
    x = keras.Input((4,), name="pixels")
    e = EarlyExit(2, name="leave")(keras.layers.Dense(4)(x))
    return keras.Model(x, keras.layers.Dense(2)(keras.layers.Concatenate(name="joins")([e, x])), name="net")


def shared_layer():
    x = keras.Input((4,))
    dense = keras.layers.Dense(4, name="twice")
    h = dense(EarlyExit(2)(dense(x)))
    return keras.Model(x, keras.layers.Dense(2)(h), name="net")


def chain(*layers):
    return keras.Sequential([keras.Input((4,)), *layers], name="net")


def nested():
    inner = keras.Sequential([keras.Input((4,)), EarlyExit(2)], name="inner")
    return chain(inner, keras.layers.Dense(2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (skip_around, "Cannot cut model `net` at exit `leave`: layer `joins` behind it reads `early` from before it"),
        (input_again, "Cannot cut model `net` at exit `leave`: layer `joins` behind it reads `pixels` from before it"),
        (shared_layer, "Cannot cut model `net`: layer `twice` is used in stage_1 and again in stage_2"),
        (lambda: chain(keras.layers.Dense(2)), "Expected at least one `EarlyExit` layer. Received: `net` without one"),
        (nested, "(exits inside nested models such as `inner` do not count)"),
        (lambda: chain(EarlyExit(3), keras.layers.Dense(2)), "Expected an output of shape [batch, 3], like exit"),
        (
            lambda: chain(keras.layers.Dense(2), EarlyExit(2, name="end")),
            "at exit `end`: nothing is computed behind it",
        ),
        (
            lambda: chain(EarlyExit(2), keras.layers.Dense(2, activation="softmax", name="head")),
            "Expected logits as output, like those of the exits (and a loss with `from_logits=True`). Received: a "
            "softmax at layer `head`",
        ),
        (
            lambda: keras.Sequential([EarlyExit(2)], name="net"),
            "Expected a built model. Received: `net`, not built yet",
        ),
        (lambda: "net", "Expected a Keras model. Received: 'net'"),
    ],
)
def test_models_that_cannot_be_cut(make, message):
    with pytest.raises(ValueError) as error:
        MultiExit.from_model(make())
    assert message in str(error.value)


def test_bad_arguments():
    model = MultiExit.from_model(sequential())
    with pytest.raises(ValueError, match="`policy`. Expected a Keras layer or None. Received: 0.5"):
        model.policy = 0.5
    with pytest.raises(ValueError, match="`policy`. Expected an exit policy, here or as `model.policy`"):
        model.predict_exits(X)
    with pytest.raises(ValueError, match="`loss_weights`. Expected 3 numbers, one per exit"):
        model.compile("adam", LOSS, loss_weights=[1.0, 2.0])
    with pytest.raises(ValueError, match="`exits`. Expected one exit less than stages"):
        MultiExit(model.stages, model.exits[:1])
    with pytest.raises(ValueError, match="`exits`. Expected `EarlyExit` layers"):
        MultiExit(model.stages[:2], [keras.layers.Dense(3)])


def test_stages_may_be_plain_layers():
    end = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)])
    model = MultiExit([keras.layers.Conv2D(4, 3), end], [EarlyExit(3)])
    model(np.zeros((2, 8, 8, 1), "float32"))
    first = 36 * 9 * 4 + 4 * 3
    np.testing.assert_array_equal(model.exit_costs(), [first, first + 36 * 4 * 3])
