import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_efficient import cost, layers, models, tflite_export
from keras_efficient.ops.bits import pack_codes
from keras_efficient.tflite_export import flatbuffer


def custom_codes(path):
    model = flatbuffer.parse(path.read_bytes())
    codes = [flatbuffer.operator_code(model, op) for subgraph in model.subgraphs for op in subgraph.operators or []]
    names = flatbuffer.builtin_names()
    return model, [custom or names[builtin] for builtin, custom in codes]


def test_inputs_take_every_exit_and_meet_open_and_shut_gates(model, x):
    _, exit_index = model.predict_exits(x, verbose=0)
    assert np.bincount(exit_index, minlength=3).min() >= 20
    profile = cost.profile(model, x)
    for layer in profile.layers:
        if layer.class_name in ("GatedConv2D", "LayerGate") and "second" not in layer.name:
            assert 0.01 * layer.macs < layer.expected_macs < 0.9 * layer.macs


@pytest.mark.parametrize(
    ("form", "delegate"), [("builtin", "none"), ("composite", "none"), ("composite", "auto"), ("custom", "auto")]
)
def test_files_agree_with_keras(model, x, files, form, delegate):
    path, report = files[form]
    logits, exit_index = model.predict_exits(x, verbose=0)
    runner = tflite_export.load(path, delegate=delegate)
    result = runner(x)
    np.testing.assert_array_equal(result.exit_index, exit_index)
    np.testing.assert_allclose(result.output, logits, atol=1e-4)
    assert max(report.parity.values()) < 1e-4
    assert runner.delegated_ops == (
        0 if delegate == "none" else sum(report.written.values()) if form != "builtin" else 0
    )
    assert report.written == (
        {} if form == "builtin" else {"ke.gated_conv_2d": 3, "ke.gate_net": 3, "ke.multi_bit_dense": 1}
    )


@pytest.mark.parametrize("form", ["composite", "custom"])
def test_kernels_count_what_profile_expects(model, x, files, form):
    result = tflite_export.load(files[form][0])(x)
    assert result.executed_macs.shape == (len(x),)
    np.testing.assert_allclose(result.executed_macs.mean(), cost.profile(model, x).expected_macs, rtol=1e-5)
    costs = model.exit_costs()
    assert (result.executed_macs <= costs[result.exit_index] * (1 + 1e-6)).all()


def test_without_kernels_ops_run_in_full(model, x, files):
    stock = tflite_export.load(files["composite"][0], delegate="none")(x).executed_macs
    kernels = tflite_export.load(files["composite"][0])(x).executed_macs
    assert (stock >= kernels).all()
    assert stock.mean() > 1.1 * kernels.mean()


def test_what_is_in_the_files(files):
    composite, names = custom_codes(files["composite"][0])
    assert names.count("STABLEHLO_COMPOSITE") == 7
    assert names.count("IF") == 3
    _, names = custom_codes(files["custom"][0])
    assert names.count("ke.gated_conv_2d") == names.count("ke.gate_net") == 3
    assert "STABLEHLO_COMPOSITE" not in names
    _, names = custom_codes(files["builtin"][0])
    assert names.count("CONV_2D") == 5
    entries = json.loads(flatbuffer.get_metadata(composite, "keras_efficient"))
    assert entries["ops"] == {"ke.gated_conv_2d": 1, "ke.gate_net": 1, "ke.multi_bit_dense": 2}
    assert entries["labels"] == list("0123456789")
    assert len(entries["exits"]) == 3


def test_features_that_the_policy_does_not_read_are_not_computed(files):
    for path, _ in files.values():
        _, names = custom_codes(path)
        assert names.count("EXP") == 2  # confidence at two exits; entropy would need LOG, the margin TOPK_V2
        assert not {"LOG", "TOPK_V2", "CONCATENATION"} & set(names)


def test_packed_bits_stay_packed_and_weights_are_stored_once(tmp_path):
    head = layers.MultiBitDense(64, bits=2, group_size=64)
    model = keras.Sequential([keras.Input((512,)), head])
    packed, _ = pack_codes(np.array(head.codes).reshape(64, 8, 64), np.array(head.scales).reshape(64, 8, 2))
    sizes = {}
    for form in ("composite", "custom"):
        report = tflite_export.export(model, tmp_path / "m.tflite", ops=form)
        sizes[form] = report.bytes
        content = (tmp_path / "m.tflite").read_bytes()
        assert content.count(packed.bits.tobytes()) == 1
    stored = 512 * 64 * 2 / 8 + 8 * 64 * 2 * 4
    assert max(sizes.values()) < stored + 12000 < 512 * 64 * 4


def test_a_convolution_kernel_is_stored_once(tmp_path):
    model = keras.Sequential([keras.Input((8, 8, 32)), layers.GatedConv2D(64, 3)])
    report = tflite_export.export(model, tmp_path / "m.tflite")
    assert report.bytes < 4 * (9 * 32 * 64 + 32 * 64) + 8000


def test_stock_interpreter_without_this_package(model, x, files, tmp_path):
    np.save(tmp_path / "x.npy", x)
    code = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
run = Interpreter(model_path=sys.argv[1]).get_signature_runner()
x = np.load("x.npy")
results = [run(image=x[i:i + 1]) for i in range(len(x))]
np.savez("y.npz", **{name: np.concatenate([r[name] for r in results]) for name in ("output", "exit_index")})
assert not [name for name in sys.modules if name.startswith(("keras", "tensorflow"))]
"""
    environment = {**os.environ, "PYTHONPATH": ""}
    subprocess.run([sys.executable, "-c", code, str(files["composite"][0])], cwd=tmp_path, env=environment, check=True)
    logits, exit_index = model.predict_exits(x, verbose=0)
    with np.load(tmp_path / "y.npz") as y:
        np.testing.assert_array_equal(y["exit_index"], exit_index)
        np.testing.assert_allclose(y["output"], logits, atol=1e-4)


def test_free_batch_without_branches(tmp_path, x):
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.GatedConv2D(12, 3, padding="same", activation="relu")])
    tflite_export.export(model, tmp_path / "m.tflite", batch_size=None)
    expected = keras.ops.convert_to_numpy(model(x[:5]))
    for delegate in ("none", "auto"):
        runner = tflite_export.load(tmp_path / "m.tflite", delegate=delegate)
        np.testing.assert_allclose(runner(x[:5]).output, expected, atol=1e-5)
        np.testing.assert_allclose(runner(x[:2]).output, expected[:2], atol=1e-5)


def test_all_exits_are_outputs_without_a_policy(tmp_path, x, network):
    model = models.MultiExit.from_model(network(layer_gates=False))
    report = tflite_export.export(model, tmp_path / "m.tflite", representative_data=x)
    assert list(report.parity) == ["exit_1", "exit_2", "exit_3"]
    result = tflite_export.load(tmp_path / "m.tflite")(x[:4])
    assert result.exit_index is None
    expected = model.predict_all(x[:4], verbose=0)
    for name, values in expected.items():
        np.testing.assert_allclose(result.outputs[name], values, atol=1e-4)


def test_several_inputs_and_outputs_keep_their_names(tmp_path):
    a, b = keras.Input((4,), name="left"), keras.Input((6,), name="right")
    joined = keras.layers.Concatenate()([a, b])
    outputs = {"sum": keras.layers.Dense(3)(joined), "scores": layers.MultiBitDense(8)(joined)}
    model = keras.Model({"left": a, "right": b}, outputs)
    tflite_export.export(model, tmp_path / "m.tflite")
    rng = np.random.default_rng(0)
    data = {"left": rng.normal(size=(3, 4)).astype("float32"), "right": rng.normal(size=(3, 6)).astype("float32")}
    result = tflite_export.load(tmp_path / "m.tflite")(**data)
    for name, expected in model(data).items():
        np.testing.assert_allclose(result.outputs[name], expected, atol=1e-5)


def test_mixed_precision_is_rebuilt_in_float32(tmp_path, x):
    keras.utils.set_random_seed(0)
    block = layers.GatedConv2D(12, 3, activation="relu", batch_normalization=True, dtype="mixed_float16")
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), block, keras.layers.Flatten(), keras.layers.Dense(4, dtype="float32")]
    )
    report = tflite_export.export(model, tmp_path / "m.tflite", representative_data=x)
    assert report.parity["output"] < 1e-4
    result = tflite_export.load(tmp_path / "m.tflite")(x)
    np.testing.assert_allclose(result.output, keras.ops.convert_to_numpy(model(x)), atol=2e-2)


def test_mixed_precision_of_a_whole_program(tmp_path, x):
    """Layers that layers make follow the policy of the program, and losses are functions of the user's."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = keras.Sequential([keras.Input((8, 8, 1)), Halves(), keras.layers.Dense(4)])
        model.compile("sgd", lambda y, found: keras.ops.mean(found))
        report = tflite_export.export(model, tmp_path / "m.tflite", representative_data=x)
        assert keras.config.dtype_policy().name == "mixed_float16"
    finally:
        keras.config.set_dtype_policy("float32")
    assert report.parity["output"] < 1e-4
    result = tflite_export.load(tmp_path / "m.tflite")(x)
    np.testing.assert_allclose(result.output, keras.ops.convert_to_numpy(model(x)), atol=2e-2)


class Halves(keras.layers.Layer):
    """Makes its own layers without a word on precision, and is not registered."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.normalize = keras.layers.Normalization(mean=0.5, variance=0.25)
        self.inner = keras.layers.Conv2D(6, 3, name="inner")

    def build(self, shape):
        self.normalize.build(shape)
        self.inner.build(shape)

    def call(self, x):
        return keras.ops.mean(self.inner(self.normalize(x)), axis=(1, 2))


def test_labels_and_normalization_from_arrays(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    tflite_export.export(
        model, tmp_path / "m.tflite", labels=np.array(["a", "b"]), normalization={"mean": np.float32(0.5)}
    )
    entries = tflite_export.load(tmp_path / "m.tflite").metadata
    assert entries["labels"] == ["a", "b"]
    assert entries["normalization"] == {"mean": 0.5}


def test_a_slice_that_ends_before_the_end_is_no_whole_part(tmp_path):
    a, b = keras.Input((4,), name="a"), keras.Input((7,), name="b")
    joined = keras.layers.Concatenate()([a, b])
    model = keras.Model([a, b], [joined[:, 4:-1], joined[:, :4], joined[:, 4:99]])
    data = {"a": np.arange(12.0).reshape(3, 4), "b": np.arange(21.0).reshape(3, 7)}
    data = {name: array.astype("float32") for name, array in data.items()}
    for batch in (1, None):
        report = tflite_export.export(model, tmp_path / "m.tflite", batch_size=batch, representative_data=data)
        assert max(report.parity.values()) == 0.0
        shapes = [output.shape for output in tflite_export.load(tmp_path / "m.tflite")(**data).outputs.values()]
        assert sorted(shapes) == [(3, 4), (3, 6), (3, 7)]


def test_plain_keras_export_gives_a_portable_file(tmp_path, x):
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.GatedConv2D(6, 3), keras.layers.Flatten(), layers.MultiBitDense(3)]
    )
    model.export(str(tmp_path / "m.tflite"), format="litert", verbose=False)
    runner = tflite_export.load(tmp_path / "m.tflite", delegate="none")
    np.testing.assert_allclose(runner(x[:1]).output, keras.ops.convert_to_numpy(model(x[:1])), atol=1e-5)


JAX_TRAINING = """
import sys
import numpy as np, keras
import keras_efficient
from keras_efficient import layers, models, policies, tflite_export
assert keras.backend.backend() == "jax"
x, folder = np.load("x.npy"), sys.argv[1]
network = keras.Sequential([
    keras.Input((8, 8, 1)), layers.GatedConv2D(8, 3, activation="relu"), layers.EarlyExit(3),
    keras.layers.Flatten(), layers.MultiBitDense(3),
])
model = models.MultiExit.from_model(network)
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
model.fit(x, np.arange(len(x)) % 3, epochs=1, verbose=0)
model.policy = policies.ThresholdPolicy(threshold=0.36)
report = tflite_export.export(model, "jax.tflite", representative_data=x)
assert report.written == {"ke.gate_net": 1, "ke.gated_conv_2d": 1, "ke.multi_bit_dense": 1}, report
assert max(report.parity.values()) < 1e-4, report
logits, exit_index = model.predict_exits(x, verbose=0)
np.savez("jax.npz", logits=logits, exit_index=exit_index)
try:
    tflite_export.export(keras.Sequential([keras.Input((2,)), type("Odd", (keras.layers.Layer,), {})()]), "odd.tflite")
except ValueError as error:
    assert "move it into a module" in str(error)
else:
    raise AssertionError("a layer of the script itself was exported")
"""


def test_model_trained_on_jax_exports(tmp_path, x):
    pytest.importorskip("jax", reason="jax is not installed")
    np.save(tmp_path / "x.npy", x[:64])
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    done = subprocess.run(
        [sys.executable, "-c", JAX_TRAINING, str(tmp_path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = tflite_export.load(tmp_path / "jax.tflite")(x[:64])
    with np.load(tmp_path / "jax.npz") as expected:
        same = expected["exit_index"] == result.exit_index
        assert same.mean() > 0.95
        np.testing.assert_allclose(result.output[same], expected["logits"][same], atol=1e-4)


def test_targets_choose_the_form(tmp_path):
    model = keras.Sequential([keras.Input((16,)), layers.MultiBitDense(3)])
    assert tflite_export.export(model, tmp_path / "m.tflite", target="android").ops == "custom"
    assert tflite_export.export(model, tmp_path / "m.tflite", target="coral", ops="builtin").ops == "builtin"


def test_report_reads_well(files):
    report = files["composite"][1]
    text = str(report)
    assert "3 x ke.gated_conv_2d" in text
    assert "parity of output" in text
    assert json.loads(json.dumps(report.to_dict()))["bytes"] == pathlib.Path(report.path).stat().st_size
