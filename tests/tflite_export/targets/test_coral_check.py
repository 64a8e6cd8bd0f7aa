import json

import numpy as np
import pytest
import tensorflow as tf

from keras_efficient import tflite_export
from keras_efficient.tflite_export import flatbuffer
from keras_efficient.tflite_export.targets import edge_tpu_table
from keras_efficient.tflite_export.targets.coral_report import Status
from keras_efficient.tflite_export.targets.edge_tpu_rules import RULES


def weights(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def convolution(x, inputs=4, **kwargs):
    return tf.nn.conv2d(x, weights(3, 3, inputs, 8), 1, "SAME", **kwargs)


def opcode(model, name):
    """The operator code of that name in a parsed file."""
    number = getattr(flatbuffer.schema().BuiltinOperator, name)
    return next(code for code in model.operatorCodes if code.builtinCode == number)


def with_version(name, version, activation=None):
    """Sets the version of an operator, and a fused activation."""

    def change(model):
        opcode(model, name).version = version
        if activation is not None:
            model.subgraphs[0].operators[0].builtinOptions.fusedActivationFunction = activation

    return change


def custom_op(model):
    code = opcode(model, "RELU")
    code.builtinCode = code.deprecatedBuiltinCode = flatbuffer.CUSTOM
    code.customCode = b"my.op"


def composite(model):
    code = opcode(model, "RELU")
    code.builtinCode, code.deprecatedBuiltinCode = flatbuffer.STABLEHLO_COMPOSITE, 127


def branch(model):
    """Only the code of an IF: what it would branch to makes no difference to the compiler."""
    code = opcode(model, "RELU")
    code.builtinCode = code.deprecatedBuiltinCode = flatbuffer.schema().BuiltinOperator.IF
    code.version = 1


def weights_as_input(model):
    """Makes the kernel of the first convolution an input of the file."""
    subgraph = model.subgraphs[0]
    kernel = int(subgraph.operators[0].inputs[1])
    subgraph.tensors[kernel].buffer = 0
    subgraph.inputs = [*map(int, subgraph.inputs), kernel]


def batch_padded(model):
    paddings = model.subgraphs[0].tensors[model.subgraphs[0].operators[0].inputs[1]]
    values = np.array([[0, 1], [1, 1], [1, 1], [0, 0]], "int32")
    model.buffers[paddings.buffer].data = np.frombuffer(values.tobytes(), "uint8")


IMAGE = (1, 8, 8, 4)
# name -> (function, shape, keyword arguments, change of the file, rule that finds it, operator where it is cut)
VIOLATIONS = {
    "float model": (convolution, IMAGE, {"quantized": False}, None, "not_quantized", "CONV_2D"),
    "float input and output": (convolution, IMAGE, {"io": tf.float32}, None, "float_input", None),
    "grouped convolution": (lambda x: convolution(x, 2), IMAGE, {}, None, "unknown_version", "CONV_2D"),
    "dynamic shape": (convolution, (None, 8, 8, 4), {}, None, "dynamic_shape", None),
    "batch of two": (convolution, (2, 8, 8, 4), {}, None, "three_inner_dimensions", "CONV_2D"),
    "hard swish": (
        lambda x: (y := convolution(x)) * tf.nn.relu6(y + 3) / 6,
        IMAGE,
        {},
        None,
        "unsupported_operator",
        "HARD_SWISH",
    ),
    "leaky relu": (tf.nn.leaky_relu, IMAGE, {}, None, "unsupported_operator", "LEAKY_RELU"),
    "computed matrix": (
        lambda x: tf.matmul(x, x, transpose_b=True),
        (1, 8, 4),
        {},
        None,
        "unsupported_operator",
        "BATCH_MATMUL",
    ),
    "comparison": (lambda x: tf.cast(x > 0, "float32"), (1, 8), {}, None, "unsupported_operator", "GREATER"),
    "branch": (tf.nn.relu, IMAGE, {}, branch, "unsupported_operator", "IF"),
    "custom op": (tf.nn.relu, IMAGE, {}, custom_op, "custom_op", "my.op"),
    "composite": (tf.nn.relu, IMAGE, {}, composite, "unknown_operator", "STABLEHLO_COMPOSITE"),
    "gelu": (tf.nn.gelu, (1, 8), {}, None, "unknown_operator", "GELU"),
    "exponential": (tf.exp, (1, 8), {}, None, "unknown_version", "EXP"),
    "per-channel quantize": (
        convolution,
        IMAGE,
        {"io": tf.float32},
        with_version("QUANTIZE", 3),
        "unknown_version",
        None,
    ),
    "transposed convolution 4": (
        lambda x: tf.nn.conv2d_transpose(x, weights(2, 2, 8, 4), (1, 16, 16, 8), 2),
        IMAGE,
        {},
        with_version("TRANSPOSE_CONV", 4, activation=1),
        "unknown_version",
        "TRANSPOSE_CONV",
    ),
    "dense 12": (
        lambda x: tf.matmul(x, weights(8, 10)),
        (1, 8),
        {},
        with_version("FULLY_CONNECTED", 12),
        "unknown_version",
        None,
    ),
    "fused pooling": (
        lambda x: tf.nn.max_pool2d(x, 2, 2, "VALID"),
        IMAGE,
        {},
        with_version("MAX_POOL_2D", 2, activation=1),
        "no_fused_activation",
        "MAX_POOL_2D",
    ),
    "uneven dilation": (lambda x: convolution(x, dilations=[1, 2]), IMAGE, {}, None, "same_dilation", "CONV_2D"),
    "computed kernel": (convolution, IMAGE, {}, weights_as_input, "constant_parameters", "CONV_2D"),
    "mean over six channels": (
        lambda x: tf.reduce_mean(x, [3]),
        (1, 8, 8, 6),
        {},
        None,
        "channels_by_four",
        "MEAN",
    ),
    "mean of a large map": (
        lambda x: tf.reduce_mean(x, [1, 2]),
        (1, 128, 128, 4),
        {},
        None,
        "large_map",
        None,
    ),
    "sum over the batch": (lambda x: tf.reduce_sum(x, [0]), IMAGE, {}, None, "not_over_batch", "SUM"),
    "padded batch": (
        lambda x: tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]),
        IMAGE,
        {},
        batch_padded,
        "no_batch_padding",
        "PAD",
    ),
    "wide softmax": (tf.nn.softmax, (1, 16_001), {}, None, "at_most_16000", "SOFTMAX"),
    "softmax of a map": (tf.nn.softmax, IMAGE, {}, None, "one_dimensional_input", "SOFTMAX"),
    "strided slice": (lambda x: x[:, ::2, ::2], IMAGE, {}, None, "unit_strides", "STRIDED_SLICE"),
    "slopes per position": (
        lambda x: tf.nn.relu(x) + -(weights(8, 8, 4) ** 2) * tf.nn.relu(-x),
        IMAGE,
        {},
        None,
        "one_dimensional_slopes",
        "PRELU",
    ),
    "resize": (lambda x: tf.image.resize(x, (16, 16)), IMAGE, {}, None, "may_stay", None),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_each_violation_is_found(name, converted, tmp_path):
    function, shape, arguments, change, rule, cut = VIOLATIONS[name]
    content = converted(function, shape, **arguments)
    if change is not None:
        model = flatbuffer.parse(content)
        change(model)
        content = flatbuffer.serialize(model)
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    report = tflite_export.coral_check(path, compile=False)
    found = {finding.rule: finding for finding in report.findings}
    assert rule in found, report
    assert [verdict.operator for verdict in report.cuts][:1] == ([cut] if cut else []), report
    assert found[rule].reason.endswith(".")
    assert found[rule].mend.endswith(".")
    assert found[rule].certainty in edge_tpu_table.CERTAINTIES
    assert all(source.startswith("https://") for source in found[rule].sources)
    assert found[rule].sources
    assert report.maps_fully == all(finding.doubt for finding in report.findings)
    assert str(path) in str(report)
    json.dumps(report.to_dict())


def test_every_condition_of_the_table_has_a_model():
    tested = {rule for *_, rule, _ in VIOLATIONS.values()}
    elsewhere = {
        "one_scale_weights",  # test_dense_weights_per_channel_are_doubted
        "not_grouped",  # found with the version that says the same
        *(
            "default_weights",
            "zero_constant",
            "axis_not_batch",
            "leading_ones",
            "one_dimensional_output",
        ),  # further down
    }
    assert set(RULES) <= tested | elsewhere
    used = {rule for row in edge_tpu_table.table().rows.values() for rule in row.rules}
    assert used == set(RULES)


def test_nothing_is_found_in_a_clean_file(clean, tmp_path):
    path = tmp_path / "clean.tflite"
    path.write_bytes(clean)
    report = tflite_export.coral_check(path, compile=False)
    assert report.findings == (), report
    assert report.maps_fully
    assert report.mapped == len(report.operators) > 10
    assert report.compiler is None
    assert report.disagreements == ()


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda x: tf.concat([x, tf.zeros_like(x)], -1), (1, 8, 8, 4)),
        (lambda x: tf.add(*tf.split(x, 2, axis=-1)), (1, 8, 8, 4)),
        (lambda x: x[:, 1:5, 2:6], (1, 8, 8, 4)),
        (lambda x: tf.transpose(x, [0, 2, 1, 3]), (1, 8, 8, 4)),
        (lambda x: tf.reduce_mean(x, [3]), (1, 8, 8, 4)),
        (lambda x: tf.reduce_max(x, [1, 2]), (1, 8, 8, 6)),
    ],
    ids=["zeros joined", "split channels", "slice", "transpose", "mean over four", "maximum"],
)
def test_what_the_conditions_allow_is_mapped(function, shape, converted, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(converted(function, shape))
    report = tflite_export.coral_check(path, compile=False)
    assert report.findings == (), report


@pytest.mark.parametrize(
    ("function", "shape", "rule"),
    [
        (lambda x: tf.concat([x, weights(1, 8, 8, 4)], -1), (1, 8, 8, 4), "zero_constant"),
        (lambda x: tf.split(x, 2, axis=0)[0], (2, 8, 4), "axis_not_batch"),
        (lambda x: tf.matmul(x, weights(4, 10)), (8, 4), "one_dimensional_output"),
    ],
)
def test_further_conditions(function, shape, rule, converted, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(converted(function, shape))
    report = tflite_export.coral_check(path, compile=False)
    assert rule in {finding.rule for finding in report.findings}, report


@pytest.mark.parametrize(("shape", "axis", "moves"), [((1, 8, 1, 4), 2, True), ((1, 1, 8, 4), 1, False)])
def test_squeezing(shape, axis, moves, converted, tmp_path):
    """Written as the SQUEEZE that older converters wrote; today's write RESHAPE."""
    model = flatbuffer.parse(converted(lambda x: tf.squeeze(x, [axis]), shape))
    code = opcode(model, "RESHAPE")
    code.builtinCode = code.deprecatedBuiltinCode = flatbuffer.schema().BuiltinOperator.SQUEEZE
    path = tmp_path / "model.tflite"
    path.write_bytes(flatbuffer.serialize(model))
    report = tflite_export.coral_check(path, compile=False)
    assert [finding.rule for finding in report.findings] == (["leading_ones"] if moves else [])


def test_the_cut_is_where_a_path_first_fails_and_the_rest_is_behind(converted, tmp_path):
    """Two paths from one convolution: one fails, the other goes on; what joins them is behind the cut."""

    def network(x):
        stem = tf.nn.relu(convolution(x))
        left = convolution(tf.nn.leaky_relu(stem), 8)
        right = tf.nn.relu6(convolution(stem, 8))
        return tf.nn.leaky_relu(left) + right

    path = tmp_path / "model.tflite"
    path.write_bytes(converted(network))
    report = tflite_export.coral_check(path, compile=False)
    assert [verdict.operator for verdict in report.cuts] == ["LEAKY_RELU"]
    by_status = {status: [v.operator for v in report.operators if v.status is status] for status in Status}
    assert by_status[Status.EDGE_TPU].count("CONV_2D") == 2
    assert by_status[Status.CPU] == ["LEAKY_RELU", "LEAKY_RELU"]
    assert by_status[Status.BEHIND] == ["CONV_2D", "ADD"]
    assert report.compiles
    assert not report.maps_fully


def test_conversions_at_the_edges_cut_nothing(converted, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(converted(convolution, io=tf.float32))
    report = tflite_export.coral_check(path, compile=False)
    assert [verdict.status for verdict in report.operators] == [Status.HOST, Status.EDGE_TPU, Status.HOST]
    assert [finding.rule for finding in report.findings] == ["float_input", "float_output"]
    assert report.maps_fully


def test_dense_weights_per_channel_are_doubted(converted, tmp_path):
    def several_scales(model):
        kernel = model.subgraphs[0].tensors[model.subgraphs[0].operators[0].inputs[1]]
        kernel.quantization.scale = [float(kernel.quantization.scale[0])] * 10
        kernel.quantization.zeroPoint = [0] * 10

    model = flatbuffer.parse(converted(lambda x: tf.matmul(x, weights(8, 10)), (1, 8)))
    several_scales(model)
    path = tmp_path / "model.tflite"
    path.write_bytes(flatbuffer.serialize(model))
    (finding,) = tflite_export.coral_check(path, compile=False).findings
    assert finding.rule == "one_scale_weights"
    assert finding.doubt
    assert "10 scales" in finding.reason


def test_bad_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="not there"):
        tflite_export.coral_check(tmp_path / "missing.tflite")
    (tmp_path / "bad.tflite").write_bytes(b"no model at all")
    with pytest.raises(ValueError, match="TFL3"):
        tflite_export.coral_check(tmp_path / "bad.tflite")


def test_every_row_has_a_source():
    table = edge_tpu_table.table()
    for row in table.rows.values():
        assert row.sources, row
        assert row.certainty in edge_tpu_table.CERTAINTIES
        assert row.supported or row.mend, row
        assert set(row.rules) <= set(RULES)
    names = set(flatbuffer.builtin_names().values())
    assert set(table.rows) <= names
    assert set(table.newest) <= names
    assert (table.newest["CONV_2D"].version, table.newest["QUANTIZE"].version) == (5, 2)
    assert (table.newest["TRANSPOSE_CONV"].version, table.newest["FULLY_CONNECTED"].version) == (3, 9)
