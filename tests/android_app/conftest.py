"""The build's modules on the path, as `python android/build.py` has them; what is built once for several tests."""

import importlib.util
import sys
from pathlib import Path

import pytest

ANDROID = Path(__file__).resolve().parents[2] / "android"
sys.path[:0] = [str(path) for path in (ANDROID, ANDROID / "library") if str(path) not in sys.path]


def _needed(*programs):
    from apk import tools

    absent = tools.missing(programs)
    if absent:
        pytest.skip(f"needs {', '.join(absent)}")


@pytest.fixture(scope="session")
def java():
    """Skips where there is no JDK or no Maven."""
    _needed("javac", "java", "mvn")


@pytest.fixture(scope="session")
def android_tools(java):
    """Skips where Android's packaging tools are missing."""
    _needed("aapt", "zipalign", "apksigner", "keytool")


@pytest.fixture(scope="session")
def maven_files(java):
    """What the app's pom names, in the scope `test`."""
    from apk import maven, tools

    try:
        return maven.files(ANDROID / "app/pom.xml", "test")
    except tools.BuildError as error:
        pytest.skip(f"needs Maven Central: {str(error).splitlines()[0]}")


@pytest.fixture(scope="session")
def library(java, tmp_path_factory):
    """The Android library without native code, which takes no compiler."""
    import aar
    from apk import tools

    work = tmp_path_factory.mktemp("library")
    try:
        jars = aar.class_path(work / "jars")
    except tools.BuildError as error:
        pytest.skip(f"needs Maven Central: {str(error).splitlines()[0]}")
    aar.compile_java(aar.LIBRARY / "src/main/java", jars, work / "classes")
    return aar.pack(work / "library.aar", work / "classes", {})


@pytest.fixture(scope="session")
def make_assets():
    """The script that makes the app's assets, as a module."""
    path = ANDROID / "app/make_assets.py"
    spec = importlib.util.spec_from_file_location("keras_efficient_android_app_make_assets", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def assets(make_assets, tmp_path_factory):
    """What the app carries, but for a model: pictures of ten digits, and bytes in the place of the network."""
    from keras_efficient import datasets

    folder = tmp_path_factory.mktemp("assets")
    make_assets.write_samples(folder / "samples", datasets.load("digits"))
    (folder / "model.tflite").write_bytes(bytes(range(256)))
    return folder
