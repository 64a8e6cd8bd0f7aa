"""How a MultiTask network trains: what Keras users pass to `compile` and `fit`, and backbones of many kinds."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_efficient.models import MultiTask

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def to_numpy(x):
    return ops.convert_to_numpy(x)


def dense(activation="relu", **options):
    inputs = keras.Input((6,))
    x = layers.Dense(8, activation="relu", name="one", **options)(inputs)
    return keras.Model(inputs, layers.Dense(6, activation=activation, name="two")(x))


def network(backbone=None, loss=LOSS, **options):
    model = MultiTask(backbone or dense(), {"a": 3, "b": 3}, seed=0)
    model.compile(keras.optimizers.SGD(0.1), loss, jit_compile=False, **options)
    return model


def data(count=32):
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, 6)).astype("float32"), {task: rng.integers(0, 3, count) for task in "ab"}


@pytest.mark.parametrize("activation", ["softmax", "log_softmax", "relu", "silu"])
def test_activations_read_the_channels_of_their_task_alone(activation):
    model, (x, _) = network(dense(activation)), data(5)
    model.share_nothing()
    for layer in model.sharing_layers:
        kernels, biases = layer.get_sources()
        layer.assign_sources(kernels + np.random.default_rng(1).normal(size=kernels.shape).astype("float32"), biases)
    for task, output in model(x).items():
        np.testing.assert_allclose(to_numpy(output), to_numpy(model(x, task=task)), atol=1e-5)
        np.testing.assert_allclose(to_numpy(output), model.export(task=task).predict(x, verbose=0), atol=1e-5)


def test_gates_of_one_channel_are_not_taken_for_one_per_task():
    x = inputs = keras.Input((4, 4, 3))
    x = layers.Conv2D(4, 1, activation="relu", name="features")(x)
    x = layers.Multiply()([x, layers.Conv2D(1, 1, activation="sigmoid", name="where")(x)])
    model = MultiTask(keras.Model(inputs, layers.GlobalAveragePooling2D()(x)), {"a": 3, "b": 3}, seed=0)
    images = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype("float32")
    for task, output in model(images).items():
        np.testing.assert_allclose(to_numpy(output), to_numpy(model(images, task=task)), atol=1e-5)


@pytest.mark.parametrize("options", [{"strides": 2}, {"dilation_rate": 2}])
def test_convolutions_of_all_tasks_train_as_those_of_one(options):
    def made(tasks):
        inputs = keras.Input((8, 8, 2))
        x = layers.Conv2D(4, 3, name="one", kernel_initializer=keras.initializers.GlorotUniform(1), **options)(inputs)
        backbone = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
        model = MultiTask(backbone, tasks, seed=0)
        model.share_nothing()
        model.compile(keras.optimizers.SGD(0.5), LOSS, jit_compile=False)
        return model

    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(8, 8, 8, 2)).astype("float32"), rng.integers(0, 3, 8)
    both, alone = made({"a": 3, "b": 3}), made({"a": 3})
    both.heads[0].set_weights(alone.heads[0].get_weights())
    both.fit(x, {"a": labels, "b": labels}, epochs=2, shuffle=False, verbose=0)
    alone.fit(x, {"a": labels}, epochs=2, shuffle=False, verbose=0)
    np.testing.assert_allclose(both.predict(x, verbose=0)["a"], alone.predict(x, verbose=0)["a"], atol=1e-5)


def test_constraints_and_regularizers_see_one_filter_bank_at_a_time():
    x, y = data()
    options = {
        "kernel_constraint": keras.constraints.UnitNorm(),
        "kernel_regularizer": keras.regularizers.OrthogonalRegularizer(0.1),
    }
    backbone = dense(**options)
    plain = keras.Sequential([keras.models.clone_model(backbone), layers.Dense(3)])
    plain.build((None, 6))
    model = MultiTask(backbone, {"a": 3}, seed=0)
    plain.layers[0].set_weights(backbone.get_weights())
    plain.layers[1].set_weights(model.heads[0].get_weights())
    for one, labels in ((model, {"a": y["a"]}), (plain, y["a"])):
        one.compile(keras.optimizers.SGD(0.1), LOSS, jit_compile=False)
        one.fit(x, labels, epochs=2, shuffle=False, verbose=0)
    np.testing.assert_allclose(model.predict(x, verbose=0)["a"], plain.predict(x, verbose=0), atol=1e-5)


def test_regularizers_of_two_tasks_count_every_source():
    model = MultiTask(dense(kernel_regularizer=keras.regularizers.L2(1.0)), {"a": 3, "b": 3}, seed=0)
    kernels = model.sharing_layers[0].get_sources()[0]
    assert float(sum(model.losses)) == pytest.approx(float((kernels**2).sum()), rel=1e-5)


def test_what_a_backbone_layer_asks_for_is_kept():
    inputs = keras.Input((6,))
    known = layers.Normalization(name="known")
    known.adapt(np.random.default_rng(0).normal(5.0, 3.0, (100, 6)))
    x = layers.Dense(8, name="frozen", trainable=False)(known(inputs))
    x = layers.Dense(8, name="active", activity_regularizer=keras.regularizers.L1(1.0))(x)
    backbone = keras.Model(inputs, x)
    model = MultiTask(backbone, {"a": 3, "b": 3}, seed=0)
    x, y = data()
    np.testing.assert_allclose(
        to_numpy(model.network("a")(x)),
        to_numpy(model.heads[0](backbone(x))),
        atol=1e-5,
    )
    np.testing.assert_allclose(model.export(task="a").predict(x, verbose=0), to_numpy(model.network("a")(x)), atol=1e-5)
    later = model.with_task("c", 3)
    np.testing.assert_allclose(to_numpy(later.network("a")(x)), to_numpy(model.network("a")(x)), atol=1e-6)
    before = model.sharing_layers[0].get_sources()[0]
    model.compile(keras.optimizers.SGD(0.1), LOSS, jit_compile=False)
    model.fit(x, y, verbose=0)
    assert np.array_equal(before, model.sharing_layers[0].get_sources()[0])
    assert isinstance(model.sharing_layers[1].activity_regularizer, keras.regularizers.L1)


def test_batch_normalisations_with_constraints_are_refused():
    inputs = keras.Input((6,))
    x = layers.BatchNormalization(name="norm", gamma_constraint=keras.constraints.NonNeg())(layers.Dense(4)(inputs))
    with pytest.raises(ValueError, match=r"without gamma_constraint. Received: `norm`"):
        MultiTask(keras.Model(inputs, x), {"a": 3})


def test_a_backbone_without_filters_to_share():
    inputs = keras.Input((5, 4))
    model = MultiTask(keras.Model(inputs, layers.LSTM(3)(inputs)), {"a": 3, "b": 3})
    assert model.share_rate() == 1.0


def test_attention_in_a_backbone():
    inputs = keras.Input((5, 4))
    x = layers.MultiHeadAttention(2, 4, name="attention")(inputs, inputs)
    backbone = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    model = MultiTask(backbone, {"a": 3, "b": 3})
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    np.testing.assert_allclose(to_numpy(model(x)["a"]), to_numpy(model.heads[0](backbone(x))), atol=1e-5)


def test_lists_by_task():
    x, y = data()
    model = network(loss=[LOSS, keras.losses.SparseCategoricalCrossentropy(from_logits=True)], loss_weights=[2.0, 0.5])
    found = model.evaluate(x, y, verbose=0, return_dict=True)
    logits = model.predict(x, verbose=0)
    expected = 2.0 * float(LOSS(y["a"], logits["a"])) + 0.5 * float(LOSS(y["b"], logits["b"]))
    assert found["loss"] == pytest.approx(expected, rel=1e-4)


def test_weights_of_samples_count_in_weighted_metrics_alone():
    x, y = data()
    weights = {task: np.arange(32, dtype="float32") for task in "ab"}
    model = network(metrics=["accuracy"])
    right = model.predict(x, verbose=0)["a"].argmax(axis=1) == y["a"]
    plain = model.evaluate(x, y, sample_weight=weights, verbose=0, return_dict=True)
    assert plain["a_accuracy"] == pytest.approx(right.mean(), abs=1e-6)
    model.compile("sgd", LOSS, weighted_metrics=["accuracy"], jit_compile=False)
    found = model.evaluate(x, y, sample_weight=weights, verbose=0, return_dict=True)
    assert found["a_accuracy"] == pytest.approx((right * weights["a"]).sum() / weights["a"].sum(), abs=1e-6)


def test_arrays_of_unequal_length_by_task():
    x, y = data(20)
    images = {"a": x[:20], "b": x[5:12]}
    labels = {"a": y["a"], "b": y["b"][5:12].astype("uint8")}  # no negative numbers: absence must still be said
    model = network(metrics=["accuracy"])
    expected = model.predict(x, verbose=0)
    outputs = model.predict(images, batch_size=8, verbose=0)
    np.testing.assert_allclose(outputs["a"], expected["a"], atol=1e-6)
    np.testing.assert_allclose(outputs["b"], expected["b"][5:12], atol=1e-6)
    found = model.evaluate(images, labels, batch_size=20, verbose=0, return_dict=True)
    assert found["a_accuracy"] == pytest.approx((expected["a"].argmax(1) == y["a"]).mean(), abs=1e-6)
    assert found["b_accuracy"] == pytest.approx((expected["b"][5:12].argmax(1) == labels["b"]).mean(), abs=1e-6)
    losses = [float(LOSS(labels[task], outputs[task])) for task in "ab"]
    assert found["loss"] == pytest.approx(sum(losses), rel=1e-4)
    history = model.fit(images, labels, 20, verbose=0, shuffle=False, validation_data=(images, labels))
    assert history.history["loss"][0] == pytest.approx(sum(losses), rel=1e-4)
    assert history.history["val_loss"][0] < sum(losses)


def test_a_summed_loss_is_the_sum_over_labelled_samples():
    x, y = data()
    summed = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
    labels = {"a": np.where(np.arange(32) < 8, y["a"], -1)}
    model = network(loss=summed)
    logits = model.predict(x, verbose=0)["a"][:8]
    found = model.evaluate(x, labels, verbose=0, return_dict=True)["loss"]
    assert found == pytest.approx(float(summed(y["a"][:8], logits)), rel=1e-4)


def test_heads_for_every_pixel():
    inputs = keras.Input((4, 4, 2))
    backbone = keras.Model(inputs, layers.Conv2D(6, 3, padding="same", activation="relu")(inputs))
    heads = {"segments": layers.Conv2D(3, 1), "depth": layers.Conv2D(1, 1)}
    model = MultiTask(backbone, heads, seed=0)
    losses = {"segments": LOSS, "depth": "mse"}
    model.compile(keras.optimizers.SGD(0.1), losses, metrics={"segments": ["accuracy"]}, jit_compile=False)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 4, 4, 2)).astype("float32")
    segments = rng.integers(0, 3, (6, 4, 4))
    segments[4:] = -1
    logits = model.predict(x, verbose=0)["segments"][:4]
    found = model.evaluate(x, {"segments": segments}, verbose=0, return_dict=True)
    assert found["segments_loss"] == pytest.approx(float(LOSS(segments[:4], logits)), rel=1e-4)
    assert found["segments_accuracy"] == pytest.approx((logits.argmax(-1) == segments[:4]).mean(), abs=1e-6)
    history = model.fit(x, {"segments": segments, "depth": rng.normal(size=(6, 4, 4, 1))}, epochs=2, verbose=0).history
    assert all(np.isfinite(values).all() for values in history.values())


@pytest.mark.parametrize(
    "loss", ["SparseCategoricalCrossentropy", keras.losses.SparseCategoricalCrossentropy(name="ce")]
)
def test_losses_by_other_names_take_missing_tasks(loss):
    x, y = data()
    heads = {task: layers.Dense(3, activation="softmax") for task in "ab"}
    model = MultiTask(dense(), heads)
    model.compile("sgd", loss, jit_compile=False)
    assert np.isfinite(model.fit(x, {"a": y["a"]}, verbose=0).history["loss"]).all()


def test_losses_of_some_tasks_alone():
    x, y = data()
    model = network(loss={"a": LOSS})
    model.fit(x, {"a": y["a"]}, batch_size=16, verbose=0)


def test_arguments_by_position():
    x, y = data()
    model = network()
    assert len(model.fit(x, y, 8, 2, 0).epoch) == 2
    assert np.isfinite(model.evaluate(x, y, 8, 0)).all()


def test_decisions_have_no_weight_decay_in_mixed_precision():
    backbone = dense(dtype="mixed_float16")
    model = MultiTask(backbone, {"a": 3, "b": 3}, dtype="mixed_float16")
    model.compile(keras.optimizers.AdamW(0.1, weight_decay=0.5), LOSS, jit_compile=False)
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    assert inner is not model.optimizer
    layer = model.sharing_layers[0]
    assert not inner._use_weight_decay(layer.logits)
    assert inner._use_weight_decay(layer.kernels)


def test_layers_of_one_shape_sample_apart():
    inputs = keras.Input((8,))
    x = layers.Dense(8, name="two")(layers.Dense(8, name="one")(inputs))
    model = MultiTask(keras.Model(inputs, x), {"a": 3, "b": 3}, seed=0)
    model.set_phase("search")
    one, two = (to_numpy(layer._selection(True)) for layer in model.sharing_layers)
    assert not np.array_equal(one, two)


def test_looking_at_hard_sharing_leaves_a_trained_network_as_it_is():
    inputs = keras.Input((6,))
    x = layers.BatchNormalization(name="norm")(layers.Dense(4, name="one")(inputs))
    model = network(keras.Model(inputs, x))
    x, y = data()
    model.set_phase("hard")
    model.fit(x, y, epochs=3, verbose=0)
    known = model.predict(x, verbose=0)
    model.set_phase("shared")
    assert np.abs(model.predict(x, verbose=0)["b"] - known["b"]).max() > 1e-4
    model.set_phase("hard")
    for task, output in model.predict(x, verbose=0).items():
        np.testing.assert_allclose(output, known[task], atol=1e-6)


def test_a_trained_head_of_a_new_task_is_kept():
    model, head = network(), layers.Dense(4)
    head.build((None, 6))
    later = model.with_task("c", head)
    np.testing.assert_array_equal(later.heads[-1].get_weights()[0], head.get_weights()[0])


def test_images_of_any_size():
    inputs = keras.Input((None, None, 1))
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, name="one")(inputs))
    backbone = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    for normalization in ("task", "shared"):
        model = MultiTask(backbone, {"a": 3, "b": 3}, normalization=normalization)
        for size in (8, 11):
            assert model.predict(np.zeros((2, size, size, 1), "float32"), verbose=0)["a"].shape == (2, 3)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda m, x, y: m.compile("sgd", LOSS, weighted_metrics={"c": ["accuracy"]}), "`weighted_metrics`.*'c'"),
        (
            lambda m, x, y: m.compile("sgd", LOSS, loss_weights=[1.0]),
            "`loss_weights`.*each of the 2 tasks. Received: 1",
        ),
        (lambda m, x, y: m.compile("sgd", [LOSS]), "`loss`.*each of the 2 tasks. Received: 1"),
        (lambda m, x, y: m.compile("sgd", LOSS, metrics=["mse"], weighted_metrics=["mse"]), "None beside `metrics`"),
        (lambda m, x, y: m({"c": x}), "`inputs`.*Received: \\['c'\\]"),
        (lambda m, x, y: m.fit({"a": x}, y), "`y`.*tasks that have inputs, \\['a'\\]"),
        (lambda m, x, y: m.fit(x, y, validation_data=(x, {"c": y["a"]})), "`y`.*Received: \\['c'\\]"),
        (lambda m, x, y: m.fit(x, {"a": y["a"][:, None] + 9}), "labels of task 'a' below 3"),
    ],
)
def test_bad_input(wrong, words):
    with pytest.raises(ValueError, match=words):
        wrong(network(), *data())
