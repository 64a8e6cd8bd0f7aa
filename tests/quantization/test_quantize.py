import keras
import numpy as np
import pytest
from keras import ops

from keras_efficient import quantization
from keras_efficient.layers import MultiBitConv2D, MultiBitDense


def array(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def network():
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(6, 3, use_bias=False, name="conv")(image)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.ReLU(name="relu")(x)
    x = keras.layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(24, activation="relu", name="dense")(x)
    x = keras.layers.Dropout(0.5, name="dropout")(x)
    return keras.Model(image, keras.layers.Dense(4, activation="softmax", name="head")(x), name="net")


X = np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype("float32")
Y = np.arange(16) % 4


def compiled(model, rate=1e-2):
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def test_quantize():
    model = network()
    report = quantization.quantize(model, 8, {"dense": 48}, skip=["head"])
    made = report.model
    assert [type(layer).__name__ for layer in made.layers] == [
        "InputLayer",
        "MultiBitConv2D",
        "BatchNormalization",
        "ReLU",
        "DepthwiseConv2D",
        "Flatten",
        "MultiBitDense",
        "Dropout",
        "Dense",
    ]
    np.testing.assert_allclose(array(made(X)), array(model(X)), atol=0.05)
    conv, depthwise, dense, head = report.layers
    assert (conv.structure, conv.groups, conv.group_size, conv.average_bits) == ("channelwise", 6, 27, 8.0)
    assert (dense.structure, dense.groups, dense.group_size) == ("subchannelwise", 24 * 2, 48)
    assert 0 < conv.error < 0.01
    assert depthwise.note == "DepthwiseConv2D is neither `Dense` nor `Conv2D`"
    assert head.note == "left out by name"
    assert "left as it is" in str(report)
    assert all(type(layer) not in (MultiBitConv2D, MultiBitDense) for layer in model.layers)


def test_sequential_models():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5, "relu"), keras.layers.Dense(2)])
    made = quantization.quantize(model, 6).model
    x = X.reshape(-1)[:24].reshape(4, 6)
    np.testing.assert_allclose(array(made(x)), array(model(x)), atol=0.1)


@pytest.mark.parametrize("phase", ["basis", "coordinate", "moments", "latent"])
def test_every_phase(phase):
    model = compiled(quantization.quantize(network(), 2).model, rate=0.1)
    model.phase = phase
    dense = model.get_layer("dense")
    before = {name: array(getattr(dense, name)).copy() for name in ("codes", "scales", "kernel", "bias")}
    statistics = array(model.get_layer("norm").moving_mean).copy()
    logs = model.fit(X, Y, batch_size=8, epochs=2, verbose=0).history
    assert set(logs) == {"loss", "accuracy"}
    moved = {name: not np.array_equal(array(getattr(dense, name)), value) for name, value in before.items()}
    assert moved["bias"]
    assert moved["scales"] == moved["kernel"] == (phase != "moments")
    assert moved["codes"] == (phase in ("basis", "latent"))
    assert np.array_equal(array(model.get_layer("norm").moving_mean), statistics) == (phase == "moments")
    np.testing.assert_allclose(array(dense.kernel), array(dense.float_kernel()), atol=1e-6)
    assert float(array(dense.gradients_seen)) == 4


def test_phases_that_come_back():
    """Every phase moves what it should, also where its step was compiled before; `compile` starts anew."""
    model = compiled(quantization.quantize(network(), 2).model, rate=0.1)
    dense = model.get_layer("dense")
    made = {}
    for phase in ("basis", "coordinate", "moments", "basis", "moments", "coordinate", "latent", "coordinate"):
        model.phase = phase
        variables = (dense.codes, dense.scales)
        before = [array(value).copy() for value in variables]
        model.fit(X, Y, batch_size=8, verbose=0)
        moved = [not np.array_equal(array(now), old) for now, old in zip(variables, before, strict=True)]
        assert moved == [phase in ("basis", "latent"), phase != "moments"], phase
        assert made.setdefault(phase, model.train_function) is model.train_function
    assert len(set(map(id, made.values()))) == 4
    compiled(model, rate=0.0)
    scales = array(dense.scales).copy()
    model.fit(X, Y, batch_size=8, verbose=0)
    assert model.train_function not in made.values()
    np.testing.assert_array_equal(array(dense.scales), scales)


def test_the_loss_falls():
    model = compiled(quantization.quantize(network(), 2).model)
    losses = model.fit(X, Y, epochs=12, verbose=0).history["loss"]
    assert min(losses[-3:]) < 0.9 * losses[0]


def test_the_kernels_gradient_is_that_of_floats():
    """One step in phase "moments" leaves 0.1 g in the first moment."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("gradients are taken with TensorFlow here")
    import tensorflow as tf

    model = compiled(quantization.quantize(network(), 2).model)
    plain = quantization.finished(model)
    dense = plain.get_layer("dense")
    floats = keras.Model(model.input, model.output)
    with tf.GradientTape() as tape:
        kernel = tf.Variable(array(dense.float_kernel()))
        hidden = keras.Model(plain.input, plain.get_layer("flatten").output)(X)
        out = plain.get_layer("head")(tf.nn.relu(tf.matmul(hidden, kernel) + dense.bias))
        loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(Y, out))
    expected = dense.grouping.rows(tape.gradient(loss, kernel))
    model.phase = "moments"
    model.train_on_batch(X, Y)
    np.testing.assert_allclose(array(model.get_layer("dense").weight_moments[0]), 0.1 * array(expected), atol=1e-6)
    assert floats.count_params() > 0


def test_prune_takes_what_the_model_rates_least():
    model = compiled(quantization.quantize(network(), 3).model)
    model.phase = "moments"
    model.fit(X, Y, epochs=1, verbose=0)
    layers = model.adaptive_layers
    rated = []
    for number, layer in enumerate(layers):
        moments = [array(part) for part in layer.scale_moments]
        curvature = (np.sqrt(moments[2]) + 1e-8) / np.sqrt(1 - 0.999 ** float(array(layer.gradients_seen)))
        slope = 0.01 * moments[0] / (1 - 0.9 ** float(array(layer.gradients_seen)))
        scales = array(layer.scales)
        loss = -slope * scales + 0.5 * curvature * scales**2
        rated += [(loss[i], number, i) for i in zip(*np.nonzero(scales), strict=True)]
    rated.sort(key=lambda entry: entry[0])
    bits = sum(layers[number].grouping.size for _, number, _ in rated[:40])
    before = model.average_bits * sum(layer.num_weights for layer in layers)
    assert model.prune(bits) == 40
    for _, number, index in rated[:40]:
        assert array(layers[number].scales)[index] == 0
    after = model.average_bits * sum(layer.num_weights for layer in layers)
    np.testing.assert_allclose(before - after, bits)
    np.testing.assert_allclose(array(layers[1].kernel), array(layers[1].float_kernel()))


def test_pruning_leaves_every_layer_a_basis():
    model = compiled(quantization.quantize(network(), 2).model)
    model.prune(1e9)
    assert [int(layer.widths().sum()) for layer in model.adaptive_layers] == [1, 1, 1]
    assert model.average_bits == pytest.approx(model.least_bits)
    assert model.prune(1) == 0


def test_compact_changes_nothing_but_the_order():
    model = compiled(quantization.quantize(network(), 3).model)
    model.fit(X, Y, epochs=1, verbose=0)
    layer = model.get_layer("dense")
    scales = array(layer.scales).copy()
    scales[:, 0] = 0
    scales[:, 1] *= -1
    layer.scales.assign(scales)
    kernel, moment = array(layer.float_kernel()), array(layer.scale_moments[0])
    model.compact()
    np.testing.assert_allclose(array(layer.float_kernel()), kernel, atol=1e-6)
    assert layer.live_bases == 2
    largest = np.abs(scales).argmax(axis=1)
    rows = np.arange(len(scales))
    turned = np.where(scales[rows, largest] < 0, -1, 1)
    np.testing.assert_allclose(array(layer.scale_moments[0])[:, 0], moment[rows, largest] * turned)
    model.fit(X, Y, epochs=1, verbose=0)


def test_saving_and_finished(tmp_path):
    model = compiled(quantization.quantize(network(), 3).model)
    model.fit(X, Y, epochs=1, verbose=0)
    model.prune(5000)
    model.compact()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, quantization.MultiBitModel)
    assert loaded.average_bits == model.average_bits
    np.testing.assert_allclose(array(loaded(X)), array(model(X)), atol=1e-5)
    compiled(loaded).fit(X, Y, epochs=1, verbose=0)
    plain = quantization.finished(model)
    assert type(plain) is not quantization.MultiBitModel
    np.testing.assert_allclose(array(plain(X)), array(model(X)), atol=1e-5)
    assert plain.count_params() < model.count_params() / 3
    plain.save(tmp_path / "plain.keras")
    again = keras.saving.load_model(tmp_path / "plain.keras")
    np.testing.assert_array_equal(array(again(X)), array(plain(X)))


def test_multi_bit_activations():
    model = compiled(quantization.quantize_activations(quantization.quantize(network(), 4).model, 2), 5e-3)
    assert [layer.activation_bits for layer in model.adaptive_layers] == [0, 2, 2]
    model.phase = "latent"
    losses = model.fit(X, Y, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert (array(model.get_layer("dense").levels)[1:] > 0).all()


def test_nested():
    model = quantization.quantize(network(), 3).model
    small = quantization.nested(model)
    assert [tensor.name for tensor in small.inputs] == ["image", "max_bits"]
    limits = [np.full(16, most, "int32") for most in (3, 2, 1)]
    outputs = [array(small([X, limit])) for limit in limits]
    np.testing.assert_allclose(outputs[0], array(model(X)), atol=1e-5)
    errors = [np.abs(output - outputs[0]).mean() for output in outputs]
    assert 0 == errors[0] < errors[1] < errors[2]


def test_bad_input():
    model = network()
    bad = [
        (lambda: quantization.quantize(model, 9), "`bits`. Expected an integer from 1 to 8. Received: 9"),
        (lambda: quantization.quantize(object()), "`model`. Expected a built functional or sequential model"),
        (
            lambda: quantization.quantize(model, groups={"den": 4}),
            "`groups`. Expected names of layers .* Received: 'den'",
        ),
        (
            lambda: quantization.quantize(model, groups={"dense": 7}),
            "`dense` cannot be quantised: .* divisor of the layer's",
        ),
        (lambda: quantization.quantize(model, groups={"conv": 7}), "`groups`. Expected one of .* for layer `conv`"),
        (lambda: quantization.quantize(model, skip=["norm"]), "`skip`. Expected names of layers"),
        (
            lambda: quantization.quantize(model, skip=["conv", "dense", "head"]),
            "Expected a model with `Dense` or `Conv2D`",
        ),
        (lambda: quantization.finished(model), "Expected a model with multi-bit layers"),
        (lambda: quantization.summary(model), "Expected a model with multi-bit layers"),
    ]
    for call, message in bad:
        with pytest.raises(ValueError, match=message):
            call()
    made = quantization.quantize(model).model
    with pytest.raises(ValueError, match="`phase`. Expected one of"):
        made.phase = "later"
    with pytest.raises(ValueError, match=r"`bits`. Expected 0 to 3. Received: 4"):
        quantization.quantize_activations(made, 4)
    with pytest.raises(ValueError, match="Expected names of multi-bit layers"):
        quantization.quantize_activations(made, {"norm": 2})
