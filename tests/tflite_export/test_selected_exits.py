import keras
import numpy as np
import pytest

from keras_efficient import layers, models, policies, tflite_export
from keras_efficient.tflite_export import flatbuffer


@pytest.fixture(scope="module")
def exits(x, tmp_path_factory):
    """A network of three exits that leaves at the second and the third only, and its file."""
    keras.utils.set_random_seed(5)
    h = image = keras.Input(x.shape[1:], name="image")
    for k in range(2):
        h = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name=f"convolution_{k}")(h)
        h = layers.EarlyExit(10, name=f"exit_{k}")(h)
    h = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 3, activation="relu")(h))
    model = models.MultiExit.from_model(keras.Model(image, keras.layers.Dense(10)(h)))
    data = policies.ExitData(**model.exit_data(x, np.zeros(len(x), int)))
    threshold = float(np.median(data.features[:, 1, 0]))
    model.policy = policies.SelectedExits(policies.ThresholdPolicy(threshold), [1, 2], num_exits=3)
    path = tmp_path_factory.mktemp("selected") / "model.tflite"
    tflite_export.export(model, path, representative_data=x)
    return model, path


def test_exit_that_is_passed_by_is_not_in_the_file(exits):
    _, path = exits
    parsed = flatbuffer.parse(path.read_bytes())
    codes = [flatbuffer.operator_code(parsed, op)[0] for graph in parsed.subgraphs for op in graph.operators or []]
    assert codes.count(flatbuffer.schema().BuiltinOperator.IF) == 1
    assert codes.count(flatbuffer.schema().BuiltinOperator.FULLY_CONNECTED) == 2


def test_exits_and_logits_are_those_of_keras(exits, x):
    model, path = exits
    logits, taken = model.predict_exits(x, verbose=0)
    assert set(taken) == {1, 2}
    result = tflite_export.load(path, delegate="none")(x)
    np.testing.assert_array_equal(result.exit_index, taken)
    np.testing.assert_allclose(result.output, logits, atol=1e-5)


def test_multiply_adds_lack_the_label_unit_that_was_passed_by(exits, x):
    model, path = exits
    result = tflite_export.load(path, delegate="none")(x)
    costs = model.exit_costs()
    np.testing.assert_array_equal(result.executed_macs, costs[result.exit_index] - 8 * 10)


def test_with_a_cap_every_exit_is_there(exits, x, tmp_path):
    model, _ = exits
    path = tmp_path / "capped.tflite"
    tflite_export.export(model, path, representative_data=x, budget_inputs=True)
    result = tflite_export.load(path, delegate="none")(x[:8], max_exit=0)
    np.testing.assert_array_equal(result.exit_index, 0)


def test_staged_file_passes_it_by_on_the_host(exits, x, tmp_path):
    model, _ = exits
    path = tmp_path / "staged.tflite"
    tflite_export.export(model, path, representative_data=x, staged=True)
    taken = model.predict_exits(x, verbose=0)[1]
    np.testing.assert_array_equal(tflite_export.load(path, delegate="none")(x).exit_index, taken)
