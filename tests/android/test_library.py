"""The Java library in a virtual machine on this machine, its JUnit tests class by class."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess

import pytest

LIBRARY = pathlib.Path(__file__).resolve().parents[2] / "android" / "library"
PACKAGE = "io.github.kerasefficient"
LIBRARY_PROPERTY = f"{PACKAGE}.library"


def passed(said, *names):
    """Whether JUnit says that all tests of these classes passed."""
    found = re.search(r"^OK \((\d+) tests?\)$", said, re.MULTILINE)
    assert found, said[-4000:]
    folder = LIBRARY / "src/test/java" / PACKAGE.replace(".", "/")
    return int(found[1]) == sum((folder / f"{name}.java").read_text().count("@Test\n") for name in names)


def complaints(said):
    """What -Xcheck:jni says of functions of ours; those of TensorFlow Lite are left to it."""
    found = re.findall(rf"at {re.escape(PACKAGE)}\.NativeLibrary\.\w+\(Native Method\)", said)
    return found + re.findall(r"FATAL ERROR in native method[^\n]*", said)


def test_budgets_metadata_and_loops(junit):
    names = ("BudgetTest", "ModelInfoTest", "EngineTest")
    assert passed(junit(*names), *names)


def test_metadata_of_real_and_damaged_files(junit, models):
    assert passed(junit("MetadataTest", **{"tests.models": models}), "MetadataTest")


def test_delegate(junit, host_library):
    said = junit("DelegateTest", **{LIBRARY_PROPERTY: host_library})
    assert passed(said, "DelegateTest")
    assert complaints(said) == []


def test_models_in_the_interpreter(junit, host_library, runtime, models):
    said = junit("RecordedModelsTest", **{LIBRARY_PROPERTY: host_library, "tests.models": models}, **runtime)
    assert passed(said, "RecordedModelsTest")
    assert complaints(said) == []


def test_models_with_the_library_for_android(junit, android_library, runtime, models):
    """The cross-built library itself, not one that was compiled for this machine."""
    properties = {LIBRARY_PROPERTY: android_library, "tests.models": models}
    names = ("DelegateTest", "RecordedModelsTest")
    assert passed(junit(*names, **properties, **runtime), *names)


@pytest.mark.parametrize(
    ("library", "expected"),
    [
        (None, "no keras_efficient in java.library.path"),
        ("/nowhere/libkeras_efficient.so", "/nowhere/libkeras_efficient.so"),
        ("no library", "libkeras_efficient.so could not be loaded for"),
        ("without Java", "interfaceVersion"),
    ],
)
def test_a_library_that_cannot_be_used(junit, models, tmp_path, library, expected):
    properties = {"tests.failure": expected, "tests.models": models}
    if library == "no library":
        library = tmp_path / "libkeras_efficient.so"
        library.write_text("text")
    if library == "without Java":
        from keras_efficient import tflite_export

        try:
            library = tflite_export.delegate_path()
        except FileNotFoundError as error:
            pytest.skip(str(error))
    if library is not None:
        properties[LIBRARY_PROPERTY] = library
    assert passed(junit("LibraryMissingTest", **properties), "LibraryMissingTest")


def test_metadata_with_androids_own_json(junit):
    """Android brings another implementation of org.json than the one on Maven Central."""
    jars = sorted(pathlib.Path.home().glob(".m2/repository/org/robolectric/android-all/*/android-all-*.jar"))
    if not jars:
        pytest.skip("needs Android's classes; android/app/pom.xml names them")
    names = ("ModelInfoTest", "EngineTest")
    assert passed(junit(*names, jars_first=[jars[-1]]), *names)


def test_nothing_but_android_and_tensorflow_lite_is_needed(classes):
    jars = os.pathsep.join(map(str, classes.jars))
    command = ["jdeps", "-verbose:package", "--multi-release", "base", "-cp", jars, str(classes.main)]
    said = subprocess.run(command, text=True, capture_output=True, check=True).stdout
    packages = set(re.findall(rf"^\s+{re.escape(PACKAGE)}\s+-> (\S+)", said, re.MULTILINE))
    assert {"java.nio", "org.json", "org.tensorflow.lite"} <= packages
    assert packages <= {
        "java.io",
        "java.lang",
        "java.nio",
        "java.nio.channels",
        "java.nio.charset",
        "java.util",
        "org.json",
        "org.tensorflow.lite",
        PACKAGE,
    }


def test_android_5_has_everything(classes):
    """Every class, method and field that the library uses, against a list of those of API level 21."""
    (signature,) = [file for file in classes.files if file.suffix == ".signature"]
    sniffer = [file for file in classes.files if file.parent.parent.name in ("animal-sniffer", "asm")]
    checker = ["java", "-cp", os.pathsep.join(map(str, sniffer)), str(LIBRARY.parent / "apk" / "ApiCheck.java")]
    runtime = [jar for jar in classes.jars if jar.name.startswith("tensorflow-lite")]
    done = subprocess.run([*checker, str(signature), str(classes.main), *runtime], text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
