import hashlib
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest

import keras_efficient
from keras_efficient import tflite_export
from keras_efficient.tflite_export.targets.java_snippet import java_snippet

ROOT = pathlib.Path(__file__).parents[3]


def made_aar(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("classes.jar", b"jar")
        for abi in ("arm64-v8a", "x86_64"):
            archive.writestr(f"jni/{abi}/libkeras_efficient.so", b"\x7fELF")
    return path


@pytest.fixture(scope="module")
def bundle(exits, images, tmp_path_factory):
    """`(folder, report)` of the network with exits, staged, with a made-up AAR."""
    scratch = tmp_path_factory.mktemp("android")
    report = tflite_export.export(
        exits,
        scratch / "folder",
        target="android",
        representative_data=images,
        staged=True,
        labels=[f"class {i}" for i in range(10)],
        normalization={"mean": 128.0, "std": 64.0},
        aar=made_aar(scratch / f"keras-efficient-{keras_efficient.__version__}.aar"),
    )
    return scratch / "folder", report


def test_everything_is_in_the_manifest_with_its_hash(bundle):
    folder, report = bundle
    manifest = json.loads((folder / "manifest.json").read_text())
    names = {file.name for file in folder.iterdir()}
    aar = f"keras-efficient-{keras_efficient.__version__}.aar"
    assert names == {"model.tflite", "model.json", "labels.txt", "ModelExample.java", "manifest.json", aar}
    assert set(report.files) == names
    assert set(manifest["files"]) == names - {"manifest.json"}
    for name, entry in manifest["files"].items():
        content = (folder / name).read_bytes()
        assert entry == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert manifest["abis"] == ["arm64-v8a", "x86_64"]
    assert manifest["form"] == "custom"
    assert manifest["ops"] == {"ke.multi_bit_dense": 2}
    assert manifest["gradle"][0] == f'implementation files("libs/{aar}")'
    assert manifest["notes"] == []


def test_metadata_and_labels_are_those_of_the_file(bundle):
    folder, report = bundle
    entries = json.loads((folder / "model.json").read_text())
    assert entries == tflite_export.load(folder / "model.tflite").metadata
    assert entries["staged"]
    assert (folder / "labels.txt").read_text().splitlines() == entries["labels"]
    assert report.target == "android"
    assert report.ops == "custom"
    assert max(report.parity.values()) < 1e-3
    assert "model.tflite" in str(report)


def test_a_static_model_in_an_archive_without_an_aar(images, tmp_path, monkeypatch):
    monkeypatch.setattr(keras_efficient, "__version__", "0.0.0.dev1")  # of which no AAR was ever built
    image = keras.Input((8, 8, 1), name="image")
    model = keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(image)))
    path = tmp_path / "model.zip"
    report = tflite_export.export(model, path, target="android", representative_data=images)
    with zipfile.ZipFile(path) as archive:
        assert set(archive.namelist()) == {"model.tflite", "model.json", "ModelExample.java", "manifest.json"}
        manifest = json.loads(archive.read("manifest.json"))
        assert manifest["form"] == "builtin"
    assert "was not built" in manifest["notes"][0]
    assert report.notes[-1] == manifest["notes"][0]
    again = tmp_path / "again.zip"
    tflite_export.export(model, again, target="android", representative_data=images)
    assert path.read_bytes() == again.read_bytes(), "the same export gives the same archive"


def test_composites_and_another_version(exits, images, tmp_path):
    aar = made_aar(tmp_path / "keras-efficient-9.9.9.aar")
    folder = tmp_path / "folder"
    report = tflite_export.export(exits, folder, target="android", ops="composite", representative_data=images, aar=aar)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["form"] == "composite"
    assert "litert" in manifest["gradle"][1]
    assert f"of version 9.9.9, the model was exported with {keras_efficient.__version__}" in report.notes[-1]


def test_a_path_that_ends_in_tflite_is_one_file(images, tmp_path):
    image = keras.Input((8, 8, 1), name="image")
    model = keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(image)))
    report = tflite_export.export(model, tmp_path / "m.tflite", target="android", representative_data=images)
    assert not isinstance(report, tflite_export.FolderReport)
    assert report.ops == "custom"
    assert [file.name for file in tmp_path.iterdir()] == ["m.tflite"]


def test_bad_arguments(images, tmp_path):
    image = keras.Input((8, 8, 1), name="image")
    model = keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(image)))

    def export(**arguments):
        tflite_export.export(model, tmp_path / "folder", target="android", representative_data=images, **arguments)

    with pytest.raises(FileNotFoundError, match=r"`aar`.*not there"):
        export(aar=tmp_path / "missing.aar")
    (tmp_path / "bad.aar").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"Expected an AAR with classes\.jar"):
        export(aar=tmp_path / "bad.aar")
    with pytest.raises(ValueError, match="`labels`. Expected texts without line breaks"):
        export(labels=["a", "b\nc", "d"])
    assert not (tmp_path / "folder").exists()


def test_ops_of_a_plugin_are_refused_by_name(exits, images, tmp_path, monkeypatch):
    import dataclasses

    from keras_efficient import ops

    registered = dict(ops.registered_ops())
    registered["ke.multi_bit_dense"] = dataclasses.replace(
        registered["ke.multi_bit_dense"], library="/somewhere/else.so"
    )
    monkeypatch.setattr(ops, "registered_ops", lambda: registered)
    monkeypatch.setattr(tflite_export.session, "plugin_options", lambda _: {})
    with pytest.raises(ValueError, match=r"ke\.multi_bit_dense of a plugin; export with ops='builtin'"):
        tflite_export.export(exits, tmp_path / "folder", target="android", representative_data=images)
    assert not (tmp_path / "folder").exists()


SNIPPETS = {
    "one input": ({}, {"image": [1, 8, 8, 1]}, "Budget.none()"),
    "normalised, trade-off": (
        {"normalization": {"mean": 0.0}, "exits": [{}, {}], "trade_off": {"max": 0.5}, "budget_inputs": True},
        {"image": [1, 8, 8, 1]},
        "Budget.none().withTradeOff(0.5f)",
    ),
    "two inputs, staged": (
        {"staged": True, "exits": [{}, {}]},
        {"left": [1, 4], "right": [1, 4]},
        "Budget.none().withMaxExit(0)",
    ),
}


@pytest.fixture(scope="module")
def java_class_path(tmp_path_factory):
    """Jars that the Android library is compiled against."""
    builder = ROOT / "android" / "library" / "aar.py"
    if shutil.which("javac") is None or shutil.which("mvn") is None or not builder.is_file():
        pytest.skip("compiling Java needs a JDK, Maven and the sources of the Android library")
    specification = importlib.util.spec_from_file_location("keras_efficient_aar", builder)
    module = importlib.util.module_from_spec(specification)
    path = list(sys.path)
    specification.loader.exec_module(module)
    sys.path[:] = path
    return [str(jar) for jar in module.class_path(tmp_path_factory.mktemp("jars"))]


@pytest.mark.parametrize("name", SNIPPETS)
def test_the_java_class_compiles_against_the_library(name, java_class_path, tmp_path):
    entries, inputs, budget = SNIPPETS[name]
    source = java_snippet("model.tflite", entries, inputs, 'implementation "a:b:1"')
    assert f"return {budget};" in source
    assert ("normalization().apply(input)" in source) == ("normalization" in entries)
    (tmp_path / "ModelExample.java").write_text(source)
    sources = ROOT / "android" / "library" / "src" / "main" / "java"
    path = ["-cp", os.pathsep.join(java_class_path), "-sourcepath", str(sources), "-d", str(tmp_path)]
    done = subprocess.run(
        ["javac", "-J-Xmx512m", "-encoding", "UTF-8", "-Xlint:all", "-implicit:none", *path, "ModelExample.java"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "ModelExample.java" not in done.stderr, "no warning either"


def test_every_line_of_the_java_class_is_short():
    for entries, inputs, _ in SNIPPETS.values():
        source = java_snippet("model.tflite", entries, inputs, 'implementation "a:b:1"')
        assert max(len(line) for line in source.splitlines()) <= 120
        assert np.count_nonzero([line.rstrip() != line for line in source.splitlines()]) == 0
