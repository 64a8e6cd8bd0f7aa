"""A saved model loads in a fresh process that only did `import keras_efficient`, with bit-equal outputs."""

import os
import subprocess
import sys

import keras
import numpy as np

from keras_efficient import layers, models, policies

CODE = """
import sys
import keras, numpy as np
import keras_efficient
model = keras.saving.load_model("model.keras")
x = np.load("x.npy")
outputs = model.predict_all(x, verbose=0)
logits, exit_index = model.predict_exits(x, verbose=0)
np.savez("loaded.npz", logits=logits, exit_index=exit_index, **outputs)
"""


def network():
    image = keras.Input((8, 8, 1))
    x, gate = layers.GatedConv2D(6, 3, activation="relu", batch_normalization=True, return_gate=True)(image)
    x = layers.GatedConv2D(8, 3, padding="same", gate=None)(x, input_gate=gate)
    x = layers.GatedDepthwiseConv2D(3, padding="same", batch_normalization=True)(x)
    x = layers.EarlyExit(4, pool="average_max")(x)
    x = layers.MultiBitConv2D(8, 3, padding="same", groups="kernelwise")(x)
    x = layers.LayerGate(keras.layers.Conv2D(8, 3, padding="same"))(x)
    x = layers.EarlyExit(4, label_layer=layers.MultiBitDense(4))(x)
    x = layers.GatedDense(12, activation="relu")(keras.layers.Flatten()(x))
    return keras.Model(image, layers.MultiBitDense(4, bits=3)(x))


def test_every_layer_in_a_fresh_process(tmp_path):
    x = np.random.default_rng(0).normal(size=(64, 8, 8, 1)).astype("float32")
    model = models.MultiExit.from_model(network())
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    model.fit(x, np.arange(64) % 4, epochs=2, verbose=0)
    held_out = np.random.default_rng(1).normal(size=(64, 8, 8, 1)).astype("float32")
    data = policies.ExitData(**model.exit_data(held_out, np.arange(64) % 4))
    model.policy = policies.BackwardInduction.fit(data, trade_off=0.2)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", x)
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    logits, exit_index = model.predict_exits(x, verbose=0)
    with np.load(tmp_path / "loaded.npz") as loaded:
        np.testing.assert_array_equal(loaded["logits"], logits)
        np.testing.assert_array_equal(loaded["exit_index"], exit_index)
        for name, values in model.predict_all(x, verbose=0).items():
            np.testing.assert_array_equal(loaded[name], values)


GLIMPSES = """
import keras, numpy as np
import keras_efficient
model = keras.saving.load_model("model.keras")
np.savez("loaded.npz", **model.predict_all(np.load("x.npy"), verbose=0))
"""


def test_a_glimpse_network_in_a_fresh_process(tmp_path):
    x = np.random.default_rng(0).normal(size=(4, 12, 12, 1)).astype("float32")
    model = models.GuidedAttention(3, layers.GuidedCell(4, 2, units=6, context_size=4), num_glimpses=2)
    model.build((None, 12, 12, 1))
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", x)
    done = subprocess.run(
        [sys.executable, "-c", GLIMPSES], cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(tmp_path / "loaded.npz") as loaded:
        for name, values in model.predict_all(x, verbose=0).items():
            np.testing.assert_array_equal(loaded[name], values)
