"""One small dynamic network, with gates that really open and shut and exits that are really taken, and its files."""

import keras
import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="the exporter needs the extra tflite")
pytest.importorskip("ai_edge_litert", reason="the exporter needs the extra tflite")
if keras.backend.backend() != "tensorflow":
    pytest.skip("these tests convert in this process, which needs the TensorFlow backend", allow_module_level=True)

from keras_efficient import layers, models, policies, tflite_export

SHAPE = (8, 8, 1)


def inputs(count=256, seed=0):
    """Images that differ in brightness, so that gates and exits see different inputs."""
    rng = np.random.default_rng(seed)
    bright = rng.uniform(0.2, 1.5, (count, 1, 1, 1))
    return (rng.uniform(-0.5, 1, (count, *SHAPE)) * bright).astype("float32")


def gated(x, filters, seed):
    """Two gated convolutions with a residual connection, inside a layer gate."""
    inner = keras.Input(x.shape[1:])
    h, g = layers.GatedConv2D(
        filters, 3, padding="same", activation="relu", batch_normalization=True, return_gate=True, name=f"first_{seed}"
    )(inner)
    h = layers.GatedConv2D(x.shape[-1], 3, padding="same", gate=None, name=f"second_{seed}")(h, input_gate=g)
    return layers.LayerGate(keras.Model(inner, h), name=f"layer_gate_{seed}")(x)


def functional(layer_gates=True):
    """Stem, exit, gated block, exit, convolution, multi-bit head."""
    image = keras.Input(SHAPE, name="image")
    x = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)(image)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = layers.EarlyExit(10, name="first_exit")(x)
    if layer_gates:
        x = gated(x, 12, 1)
    x = layers.GatedConv2D(12, 3, padding="same", activation="relu", name="alone")(x)
    x = layers.EarlyExit(10, name="second_exit")(x)
    x = keras.layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.MultiBitDense(10, name="head")(x))


def spread_gates(model, seed=0):
    """Gate weights under which about half of the gates are shut, for some inputs and not for others."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.path.endswith("gate_kernel"):
            weight.assign(rng.normal(0, 4.0, weight.shape))
        if weight.path.endswith("gate_bias"):
            weight.assign(rng.normal(0.1, 0.3, weight.shape))
    return model


def multi_exit(layer_gates=True):
    """The network with a threshold policy under which every exit is taken by many of `inputs()`."""
    keras.utils.set_random_seed(0)
    x = inputs()
    model = models.MultiExit.from_model(spread_gates(functional(layer_gates)))
    threshold = float(np.quantile(confidence(model.predict_all(x, verbose=0)["exit_1"]), 0.66))
    for _ in range(40):
        share = float(np.mean(confidence(model.predict_all(x, verbose=0)["exit_2"]) > threshold))
        if 0.3 < share < 0.7:
            break
        for weight in model.exits[1].trainable_weights:
            weight.assign(weight * (1.2 if share < 0.5 else 0.9))
    model.policy = policies.ThresholdPolicy(threshold=threshold)
    return model


def confidence(logits):
    """The largest probability of each row."""
    return keras.ops.convert_to_numpy(keras.ops.max(keras.ops.softmax(logits), -1))


def conditioned(summary_units=5):
    """Three exits without gates, running summary, and a policy for all trade-offs; every exit is taken by some."""
    keras.utils.set_random_seed(3)
    image = keras.Input(SHAPE, name="image")
    pool = {"pool": "average_max", "summary_units": summary_units}
    x = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)(image)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = layers.EarlyExit(10, **pool)(x)
    h = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="inner")(x)
    x = keras.layers.Add()([x, keras.layers.Conv2D(8, 3, padding="same")(h)])
    x = layers.EarlyExit(10, **pool)(x)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))  # reads across the exit, as pre-activation blocks do
    x = keras.layers.MaxPooling2D()(keras.layers.Conv2D(16, 3, padding="same", activation="relu")(x))
    network = keras.Model(image, keras.layers.Dense(10)(keras.layers.Flatten()(x)))
    model = models.MultiExit.from_model(network)
    model.policy = spread_policy(model, inputs())
    return model


def spread_policy(model, x):
    """`score = (confidence - its median) / deviation + 0.1 summary_1 + log(trade_off / 0.1)`, through hidden units."""
    logits = model.predict_all(x, verbose=0)
    sure = np.stack([confidence(logits[name]) for name in model.exit_names[:-1]])
    width = 4 + model.summary_units
    mean, scale = np.zeros((2, width + 1)), np.ones((2, width + 1))
    mean[:, 0], scale[:, 0] = np.median(sure, axis=1), 1 / sure.std(axis=1)
    mean[:, -1] = np.log(0.1)
    column = np.zeros((width + 1, 1))
    column[[0, 4, -1], 0] = 1.0, 0.1, 1.0
    hidden = (np.concatenate([column, -column], axis=1), np.zeros((2, 2)))
    return policies.LearnedPolicy.from_arrays(
        mean, scale, [hidden, (np.array([[1.0], [-1.0]]), np.zeros(1))], trade_off_range=(0.01, 1.0)
    )


@pytest.fixture(scope="session")
def x():
    return inputs()


@pytest.fixture(scope="session")
def model():
    return multi_exit()


@pytest.fixture(scope="session")
def budgeted():
    return conditioned()


@pytest.fixture(scope="session")
def network():
    return functional


@pytest.fixture(scope="session")
def files(model, x, tmp_path_factory):
    """Form -> (path, report)."""
    folder = tmp_path_factory.mktemp("files")
    made = {}
    for form in ("composite", "custom", "builtin"):
        path = folder / f"{form}.tflite"
        made[form] = (
            path,
            tflite_export.export(model, path, ops=form, representative_data=x, labels=list("0123456789")),
        )
    return made
