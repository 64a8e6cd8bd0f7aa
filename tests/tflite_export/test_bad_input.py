import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_efficient import _native, layers, tflite_export
from keras_efficient.tflite_export import exporter, extras, flatbuffer, metadata, runtime


def small():
    return keras.Sequential(
        [keras.Input((8, 8, 1)), layers.GatedConv2D(4, 3), keras.layers.Flatten(), keras.layers.Dense(2)]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "model.onnx"}, "`path`. Expected a name that ends in .tflite. Received: 'model.onnx'"),
        ({"ops": "flex"}, "`ops`. Expected one of"),
        ({"target": "ios"}, "`target`. Expected one of"),
        ({"quantize": "int4"}, "`quantize`. Expected None or 'int8'. Received: 'int4'"),
        ({"batch_size": 0}, "`batch_size`. Expected None or a positive integer. Received: 0"),
        ({"batch_size": "x"}, "`batch_size`. Expected None or a positive integer. Received: 'x'"),
        ({"quantize": "int8"}, "`representative_data`. Expected real inputs"),
        ({"representative_data": np.zeros((4, 8, 8, 3))}, r"Expected shape [N, [8, 8, 1]]"),
        ({"representative_data": {"other": np.zeros((4, 8, 8, 1))}}, "`representative_data`. Expected arrays for"),
        ({"aar": "library.aar"}, "`aar`. Expected None for a single file. Received: 'library.aar'"),
        ({"staged": True, "signature": "main"}, "`signature`. Expected the default for a staged file"),
        ({"normalization": {"mean": float("nan")}}, "`normalization`. Expected finite numbers by name"),
        ({"normalization": [0.5]}, "`normalization`. Expected finite numbers by name. Received: [0.5]"),
        ({"model": lambda x: x}, "`model`. Expected a keras.Model. Received: function"),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    model = arguments.pop("model", None) or small()
    path = tmp_path / arguments.pop("path", "m.tflite")
    with pytest.raises(ValueError, match=re.escape(message).replace("'model", ".*model")) as caught:
        tflite_export.export(model, path, **arguments)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_policy_needs_one_input_at_a_time(model, tmp_path):
    with pytest.raises(ValueError, match="`batch_size`. Expected 1 for a model with an exit policy"):
        tflite_export.export(model, tmp_path / "m.tflite", batch_size=4)


def test_integers_are_not_made_of_fractions(tmp_path):
    model = keras.Sequential([keras.Input((2,), dtype="int32"), keras.layers.Embedding(3, 2)])
    tflite_export.export(model, tmp_path / "m.tflite")
    runner = tflite_export.load(tmp_path / "m.tflite")
    with pytest.raises(ValueError, match="Expected int32. Received: float64"):
        runner(np.array([[1.9, 0.2]]))
    assert runner(np.array([[1, 0]], "uint8")).output.shape == (1, 2, 2)


def test_path_that_cannot_be_written(tmp_path):
    with pytest.raises(OSError, match="writable directory"):
        tflite_export.export(small(), tmp_path / "absent" / "m.tflite")
    (tmp_path / "folder.tflite").mkdir()
    with pytest.raises(OSError, match="writable directory"):
        tflite_export.export(small(), tmp_path / "folder.tflite")


def test_unbuilt_and_dynamic_models(tmp_path):
    with pytest.raises(ValueError, match="Expected a built model"):
        tflite_export.export(keras.Sequential([keras.layers.Dense(2)]), tmp_path / "m.tflite")
    model = keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(2, 3)])
    with pytest.raises(ValueError, match="Expected static dimensions behind the batch"):
        tflite_export.export(model, tmp_path / "m.tflite")
    assert list(tmp_path.iterdir()) == []


@keras.saving.register_keras_serializable(package="tests")
class Determinant(keras.layers.Layer):
    def call(self, x):
        return keras.ops.det(x)


def test_layer_that_the_converter_cannot_express_is_named(tmp_path):
    model = keras.Sequential([keras.Input((3, 3)), Determinant(name="volume")])
    with pytest.raises(ValueError, match=r"cannot express .MatrixDeterminant. of layer .*volume"):
        tflite_export.export(model, tmp_path / "m.tflite")
    assert list(tmp_path.iterdir()) == []


def test_failed_export_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "m.tflite"
    tflite_export.export(small(), path)
    old = path.read_bytes()
    monkeypatch.setattr(exporter, "_verify", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tflite_export.export(small(), path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_write_whole_cleans_up(tmp_path):
    with pytest.raises(TypeError):
        flatbuffer.write_whole(tmp_path / "m.tflite", "no bytes")
    assert list(tmp_path.iterdir()) == []


def test_missing_extra_is_named_with_its_command():
    with pytest.raises(ImportError, match=re.escape('pip install "keras-efficient[tflite]"')) as caught:
        extras.require("absent_package_of_this_test", "tflite")
    assert "absent_package_of_this_test" in str(caught.value)


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.9])
def test_truncated_files(files, tmp_path, keep):
    content = files["composite"][0].read_bytes()
    path = tmp_path / "cut.tflite"
    path.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(ValueError, match=r"(?i)tflite") as caught:
        tflite_export.load(path)
    assert "\n" not in str(caught.value).strip()


CORRUPT = """
import sys
import numpy as np
from keras_efficient import tflite_export
with open(sys.argv[1], "rb") as file:
    content = file.read()
outcomes = {"loaded": 0, "refused": 0}
for seed in range(40):
    rng = np.random.default_rng(seed)
    broken = np.frombuffer(content, "uint8").copy()
    # Half of them in the last part, where the tables are.
    places = rng.integers(0 if seed % 2 else int(0.6 * len(broken)), len(broken), size=4)
    broken[places] = rng.integers(0, 256, size=4)
    with open("broken.tflite", "wb") as file:
        file.write(broken.tobytes())
    try:
        tflite_export.load("broken.tflite")
        outcomes["loaded"] += 1
    except ValueError as error:
        assert str(error), seed
        outcomes["refused"] += 1
print(outcomes)
assert outcomes["refused"] >= 5
"""


def test_corrupted_files_load_or_are_refused(files, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CORRUPT, str(files["composite"][0])], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`path`. Expected a .tflite file"):
        tflite_export.load(tmp_path / "absent.tflite")


def test_bad_load_arguments(files):
    path = files["composite"][0]
    with pytest.raises(ValueError, match="`num_threads`"):
        tflite_export.load(path, num_threads=0)
    with pytest.raises(FileNotFoundError, match="`delegate`"):
        tflite_export.load(path, delegate="absent.so")
    with pytest.raises(ValueError, match="`runtime`"):
        tflite_export.load(path, runtime="onnx")
    with pytest.raises(ValueError, match="could not be loaded by"):
        tflite_export.load(path, delegate=__file__)


def test_bad_runner_inputs(files, x):
    runner = tflite_export.load(files["composite"][0])
    with pytest.raises(ValueError, match="shape for input `image`"):
        runner(x[:, :4])
    with pytest.raises(ValueError, match=re.escape("Expected ['image']. Received: ['other']")):
        runner(other=x)
    with pytest.raises(ValueError, match="dtype for input `image`"):
        runner(np.full(x.shape, "a"))
    with pytest.raises(ValueError, match="shape for input `image`"):
        runner(x[:0])


def test_old_runtimes_are_told_what_they_need(files, monkeypatch):
    class Module:
        @staticmethod
        def Interpreter(**_):  # noqa: N802
            raise ValueError("Didn't find op for builtin opcode 'STABLEHLO_COMPOSITE' version '1'")

    old = runtime.Runtime("tflite_runtime", "2.14.0", Module)
    content = files["composite"][0].read_bytes()
    entries = metadata.read(flatbuffer.parse(content))
    with pytest.raises(ValueError, match=r"needs LiteRT \(ai-edge-litert\), or TFLite 2.18.1 or newer"):
        old.interpreter(content, [], 1, entries)
    assert runtime.runs_composites("ai_edge_litert", "1.0.1")
    assert not runtime.runs_composites("tensorflow", "2.17.1")
    assert runtime.runs_composites("tensorflow", "2.18.1")


def test_custom_ops_need_the_delegate(files):
    with pytest.raises(ValueError, match="needs the delegate"):
        tflite_export.load(files["custom"][0], delegate="none")


def test_without_the_native_library(files, x, monkeypatch, tmp_path):
    monkeypatch.setattr(_native, "LIBRARY_NAME", "libabsent.so")
    with pytest.warns(UserWarning, match="portable decomposition"):
        runner = tflite_export.load(files["composite"][0])
    assert runner.delegated_ops == 0
    assert runner(x[:2]).output.shape == (2, 10)
    report = tflite_export.export(small(), tmp_path / "m.tflite", ops="custom")
    assert report.parity == {}
    assert "native library" in report.notes[0]


def test_newer_metadata_is_refused(files, tmp_path):
    parsed = flatbuffer.parse(files["composite"][0].read_bytes())
    flatbuffer.set_metadata(parsed, metadata.NAME, b'{"format": 99}')
    path = pathlib.Path(tmp_path / "new.tflite")
    path.write_bytes(flatbuffer.serialize(parsed))
    with pytest.raises(ValueError, match="format 1 or older"):
        tflite_export.load(path)
