"""Running summary, exits by name, gradient equilibrium and self-distillation."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_efficient.layers import EarlyExit
from keras_efficient.models import MultiExit, thin_resnet

X = np.random.default_rng(0).normal(size=(12, 8, 8, 3)).astype("float32")
Y = np.random.default_rng(1).integers(0, 4, 12)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def array(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def plain():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3, activation="relu", name="one"),
            keras.layers.Conv2D(5, 3, activation="relu", name="two"),
            keras.layers.Conv2D(6, 3, activation="relu", name="three"),
            keras.layers.GlobalAveragePooling2D(name="pool"),
            keras.layers.Dense(4, name="logits"),
        ]
    )


def with_summary(**options):
    return MultiExit.from_model(plain(), ["one", "two", "three"], {"summary_units": 7, **options})


def test_exits_by_name_share_the_network():
    network = plain()
    model = MultiExit.from_model(network, ["one", "three"], {"pool": "average_max"})
    assert model.exit_names == ["exit_1", "exit_2", "exit_3"]
    assert [layer.name for layer in model.exits] == ["exit_1", "exit_2"]
    np.testing.assert_allclose(array(model(X)["exit_3"]), array(network(X)), atol=1e-6)
    inner = keras.Model(network.inputs, [network.get_layer("one").output, network.get_layer("three").output])
    for layer, name, features in zip(model.exits, ("exit_1", "exit_2"), inner(X), strict=True):
        np.testing.assert_allclose(array(model(X)[name]), array(layer.branch(features)), atol=1e-6)


def test_running_summary_by_hand():
    model = with_summary()
    found = {name: array(value) for name, value in model(X).items()}
    features, summary = X, np.zeros((len(X), 7))
    for stage, unit, name in zip(model.stages, model.exits, model.exit_names, strict=False):
        features = array(stage(features))
        pooled = features.mean(axis=(1, 2))
        kernel, bias = (array(weight) for weight in unit.summary_unit.weights)
        summary = np.maximum(np.concatenate([pooled, summary], axis=1) @ kernel + bias, 0)
        kernel, bias = (array(weight) for weight in unit.unit[-1].weights)
        logits = np.concatenate([pooled, summary], axis=1) @ kernel + bias
        np.testing.assert_allclose(found[name], logits, atol=1e-5)


def test_summary_is_part_of_exit_data_and_saved(tmp_path):
    model = with_summary()
    data = model.exit_data(X, Y)
    assert data["summary"].shape == (12, 4, 7)
    assert np.all(data["summary"][:, -1] == 0)
    assert data["summary"][:, 1].max() > 0
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras").exit_data(X, Y)
    for name, values in data.items():
        np.testing.assert_array_equal(again[name], values)


def test_exits_must_have_the_same_summary():
    stages = [keras.layers.Dense(3) for _ in range(3)]
    with pytest.raises(ValueError, match=r"same `summary_units` at every exit\. Received: \[None, 4\]"):
        MultiExit(stages, [EarlyExit(3), EarlyExit(3, summary_units=4)])


def gradients(model, values):
    """The gradient of the mean squared logits of all exits, summed, by `layer/weight`."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            total = sum(ops.mean(ops.square(z)) for z in model(values, training=True).values())
        found = tape.gradient(total, model.trainable_variables)
    else:
        import jax

        def loss(trainable):
            outputs, _ = model.stateless_call(
                trainable, [v.value for v in model.non_trainable_variables], values, training=True
            )
            return sum(ops.mean(ops.square(z)) for z in outputs.values())

        found = jax.grad(loss)([v.value for v in model.trainable_variables])
    names = ["/".join(v.path.split("/")[-2:]) for v in model.trainable_variables]
    return {name: 0.0 if g is None else array(g) for name, g in zip(names, found, strict=True)}


def exit_gradients(k):
    """The gradient of the mean squared logits of exit `k` alone, of K = 4."""
    model = MultiExit.from_model(plain(), ["one", "two", "three"])
    original = model.call
    model.call = lambda inputs, training=None: {"only": list(original(inputs, training).values())[k]}
    return gradients(model, X)


def test_gradient_equilibrium_is_the_mean_over_the_exits_behind():
    """Layer `one` gets the mean over all four exits, `two` over the last three, and so on; label units keep theirs."""
    alone = [exit_gradients(k) for k in range(4)]
    model = MultiExit.from_model(plain(), ["one", "two", "three"])
    model.compile("sgd", LOSS, gradient_equilibrium=True)
    balanced = gradients(model, X)
    for index, name in enumerate(("one", "two", "three")):
        paths = [path for path in balanced if path.startswith(f"{name}/")]
        assert len(paths) == 2
        for path in paths:
            mean = sum(found[path] for found in alone[index:]) / (4 - index)
            np.testing.assert_allclose(balanced[path], mean, rtol=1e-4, atol=1e-7)
    for path in (path for path in balanced if path.startswith(("logits/", "exit_"))):
        np.testing.assert_allclose(balanced[path], sum(found[path] for found in alone), rtol=1e-5, atol=1e-8)


def test_self_distillation_by_hand():
    model = MultiExit.from_model(plain(), ["one", "two"])
    model.compile("sgd", LOSS, distillation=0.5, temperature=2.0)
    logits = {name: array(z) for name, z in model(X).items()}
    without = sum(float(array(LOSS(Y, z))) for z in logits.values())

    def softmax(z):
        exponentials = np.exp(z / 2.0)
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    teacher = softmax(logits["exit_3"])
    extra = sum((teacher * np.log(teacher / softmax(logits[name]))).sum(axis=1).mean() for name in ("exit_1", "exit_2"))
    total = float(array(model.compute_loss(x=X, y=Y, y_pred=model(X), training=True)))
    assert total == pytest.approx(without + 0.5 * 4.0 * extra, rel=1e-5)
    assert float(array(model.compute_loss(x=X, y=Y, y_pred=model(X), training=False))) == pytest.approx(without, 1e-5)


def test_training_options_are_saved(tmp_path):
    model = with_summary()
    model.compile("sgd", LOSS, gradient_equilibrium=True, distillation=0.25, temperature=4.0)
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert (loaded.gradient_equilibrium, loaded.distillation, loaded.temperature) == (True, 0.25, 4.0)
    loaded.fit(X, Y, verbose=0)


@pytest.mark.parametrize(
    ("exits", "message"),
    [
        (["one", "twoo"], r"names of layers of `.*` that are used once, such as \['two'\]\. Received: 'twoo'"),
        (["two", "one"], "different layers from the first to the last"),
        (["one", "one"], "different layers from the first to the last"),
        ([], "at least one name"),
        (["logits"], "nothing is computed behind it"),
    ],
)
def test_exits_that_name_no_place(exits, message):
    with pytest.raises(ValueError, match=message):
        MultiExit.from_model(plain(), exits)


def test_bad_options():
    model = MultiExit.from_model(plain(), ["one"])
    with pytest.raises(ValueError, match="`distillation`. Expected a number of at least 0. Received: -1"):
        model.compile("sgd", LOSS, distillation=-1)
    with pytest.raises(ValueError, match="`temperature`. Expected a number above 0. Received: 0"):
        model.compile("sgd", LOSS, temperature=0)
    with pytest.raises(ValueError, match="`exit_options`. Expected none without names"):
        MultiExit.from_model(plain(), exit_options={"pool": "average"})


def test_stages_whose_shapes_do_not_fit():
    first = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)], name="first")
    second = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)], name="second")
    with pytest.raises(ValueError, match=r"Expected stage 1 \(`second`\) to take what the one before it gives"):
        MultiExit([first, second], [EarlyExit(2)]).build((None, 4))
    last = keras.Sequential([keras.Input((3,)), keras.layers.Dense(5)], name="last")
    with pytest.raises(ValueError, match=r"last stage to give logits \[batch, 2\] like exit 0"):
        MultiExit([first, last], [EarlyExit(2)]).build((None, 4))


def test_thin_resnet_macs_by_hand():
    """Stem 3x3x3x16 at 32x32; three stages of two convolutions a block; 1x1 shortcuts where the stages begin."""
    from keras_efficient import cost

    macs = 9 * 3 * 16 * 1024 + 4 * 9 * 16 * 16 * 1024
    macs += (9 * 16 * 32 + 3 * 9 * 32 * 32 + 16 * 32) * 256
    macs += (9 * 32 * 64 + 3 * 9 * 64 * 64 + 32 * 64) * 64
    macs += 64 * 10
    assert cost.profile(thin_resnet(14)).macs == macs
    with pytest.raises(ValueError, match=r"Expected 6 n \+ 2 with n >= 1. Received: 18"):
        thin_resnet(18)


def test_thin_resnet_with_other_stages():
    """Nine blocks as 1, 1 and 7 cost what three threes do but for shortcuts, of which there are as many."""
    from keras_efficient import cost

    network = thin_resnet(20, blocks=(1, 1, 7))
    assert (
        cost.profile(network).macs
        == 9 * 3 * 16 * 1024
        + 2 * 9 * 16 * 16 * 1024
        + (9 * 16 * 32 + 9 * 32 * 32 + 16 * 32) * 256
        + (9 * 32 * 64 + 13 * 9 * 64 * 64 + 32 * 64) * 64
        + 64 * 10
    )
    assert [network.get_layer(f"block_{k}").output.shape[-1] for k in range(1, 10)] == [16, 32] + [64] * 7
    for blocks in ((1, 1, 6), (0, 2, 7), (4, 5)):
        with pytest.raises(ValueError, match="Expected three positive numbers whose sum is 9, for depth 20"):
            thin_resnet(20, blocks=blocks)
