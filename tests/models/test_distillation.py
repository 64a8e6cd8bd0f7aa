import keras
import numpy as np
import pytest
from keras import ops

from keras_efficient import cost, models
from keras_efficient.callbacks import ComputeBudget
from keras_efficient.layers.dynamic import dynamic_layers

SHAPE = (8, 8, 3)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    y = np.arange(256) % 4
    return rng.normal(size=(256, *SHAPE)).astype("float32") + y[:, None, None, None].astype("float32"), y


def pair():
    """A dense network, and an LC-Net with its weights."""
    keras.utils.set_random_seed(0)
    options = {"num_classes": 4, "input_shape": SHAPE}
    dense = models.LCResNet(8, 8, layer_gates=False, channel_gates=False, **options)
    network = models.LCResNet(8, 8, **options)
    models.copy_weights(dense, network)
    return dense, network


def taught(kind, teacher, student, weight=0.3):
    model = kind(teacher, student, [keras.distillation.LogitsDistillation(4.0)], [0.7], student_loss_weight=weight)
    model.build((None, *SHAPE))
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return model


def test_losses_of_layers_count(data):
    x, y = data
    dense, network = pair()
    ours, plain = (taught(kind, dense, network) for kind in (models.Distiller, keras.distillation.Distiller))
    for layer in dynamic_layers(network):
        layer.budget_coefficient.assign(1e-3)
    values = []
    for model in (ours, plain):
        y_pred = model(x, training=True)
        values.append(float(ops.convert_to_numpy(model.compute_loss(x, y, y_pred, training=True))))
    spent = sum(float(ops.convert_to_numpy(loss)) for loss in network.losses)
    assert spent > 1
    assert values[0] == pytest.approx(values[1] + spent, rel=1e-5)
    tested = [float(ops.convert_to_numpy(m.compute_loss(x, y, m(x), training=False))) for m in (ours, plain)]
    assert tested[0] == pytest.approx(tested[1])


def test_a_budget_is_met_under_a_teacher(data):
    x, y = data
    dense, network = pair()
    model = taught(models.Distiller, dense, network)
    history = model.fit(x, y, epochs=15, batch_size=32, verbose=0, callbacks=[ComputeBudget(0.5)]).history
    assert history["macs_share"][0] > 0.7
    assert history["macs_share"][-1] == pytest.approx(0.5, abs=0.05)
    assert not dense.trainable
    models.harden(network, [x])
    assert cost.profile(network, x).expected_macs < 0.8 * cost.profile(dense).macs


def test_regularizers_of_a_student_that_its_first_batch_builds(data):
    x, y = data
    teacher = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(4)])
    dense = keras.layers.Dense(4, kernel_regularizer=keras.regularizers.L2(0.5))
    model = models.Distiller(
        teacher, keras.Sequential([keras.layers.Flatten(), dense]), keras.distillation.LogitsDistillation()
    )
    model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x[:32], y[:32], batch_size=32, verbose=0)
    before = np.abs(ops.convert_to_numpy(dense.kernel)).sum()
    model.fit(x[:32], y[:32], batch_size=32, epochs=40, verbose=0)
    assert np.abs(ops.convert_to_numpy(dense.kernel)).sum() < 0.5 * before
