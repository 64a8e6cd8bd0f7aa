"""What the tests of the Android library need, built once: classes, host library, runtime, recorded models."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import platform
import runpy
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "android" / "library"
PACKAGE = "io.github.kerasefficient"
# Memory that never grows, so that what grows is a leak; calls of the Java native interface are checked.
JVM = [
    "-Xms96m",
    "-Xmx96m",
    "-XX:+UseSerialGC",
    "-XX:+AlwaysPreTouch",
    "-Xcheck:jni",
    "-XX:TieredStopAtLevel=1",
    "-XX:+ErrorFileToStdout",
]

sys.path[:0] = [str(path) for path in (LIBRARY, LIBRARY.parent, ROOT) if str(path) not in sys.path]


@dataclasses.dataclass(frozen=True)
class Classes:
    """The compiled library and its tests.

    Attributes:
        main: Folder of the library's classes.
        test: Folder of the tests' classes.
        jars: What both need.
        files: All files of Maven that they came from.
    """

    main: pathlib.Path
    test: pathlib.Path
    jars: list[pathlib.Path]
    files: list[pathlib.Path]


@pytest.fixture(scope="session")
def classes(tmp_path_factory):
    missing = [program for program in ("java", "javac", "mvn") if shutil.which(program) is None]
    if missing:
        pytest.skip(f"needs a JDK and Maven; missing: {', '.join(missing)}")
    import aar
    from apk import maven

    folder = tmp_path_factory.mktemp("classes")
    files = maven.files(LIBRARY / "pom.xml", "test")
    jars = aar.unpacked(files, folder / "jars")
    main, test = folder / "main", folder / "test"
    aar.compile_java(LIBRARY / "src/main/java", jars, main)
    aar.compile_java(LIBRARY / "src/test/java", [main, *jars], test, release=11)
    return Classes(main, test, jars, files)


@pytest.fixture(scope="session")
def host_library(tmp_path_factory):
    """The delegate with its Java binding, for this machine."""
    from native import build, cross

    try:
        compiler = build.find_compiler()
        headers = [str(folder) for folder in cross.jni_headers()]
    except build.BuildError as error:
        pytest.skip(str(error))
    import aar

    folder = tmp_path_factory.mktemp("host")
    files = [*build.sources(build.architecture_of(compiler)), aar.BINDING]
    objects = build.compile_objects(folder, files, compiler, includes=headers)
    library = folder / "libkeras_efficient.so"
    build.run([*compiler, *objects, *build.LINK_FLAGS, "-o", str(library)])
    return library


@pytest.fixture(scope="session")
def android_library(tmp_path_factory):
    """The delegate with its Java binding, cross-built for Android on x86-64."""
    _needs_x86_64_linux()
    from native import build, cross
    from native.targets import TARGETS

    try:
        cross.find_zig()
    except build.BuildError as error:
        pytest.skip(str(error))
    import aar

    return cross.cross_build(TARGETS["android-x86_64"], tmp_path_factory.mktemp("android"), [aar.BINDING])


@pytest.fixture(scope="session")
def runtime(classes, tmp_path_factory):
    """Properties under which TensorFlow Lite's Java interpreter runs on this machine."""
    _needs_x86_64_linux()
    pytest.importorskip("elftools", reason="needs pyelftools")
    script = pathlib.Path(__file__).with_name("android_runtime.py")
    module = runpy.run_path(str(script))
    folder = tmp_path_factory.mktemp("runtime")
    (file,) = [path for path in classes.files if path.parent.parent.name == "tensorflow-lite"]
    system = module["prepare"](file, folder)
    return {"java.library.path": folder, "tests.system": os.pathsep.join(map(str, system))}


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Folder of the files of `recorded_models.py`, made in a process of its own."""
    pytest.importorskip("tensorflow", reason="the exporter needs the extra tflite")
    pytest.importorskip("ai_edge_litert", reason="the exporter needs the extra tflite")
    folder = tmp_path_factory.mktemp("models")
    script = pathlib.Path(__file__).with_name("recorded_models.py")
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2"}
    done = subprocess.run([sys.executable, str(script), str(folder)], env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(scope="session")
def junit(classes):
    """Runs JUnit classes in a virtual machine with these properties; returns what it printed."""

    def run(*names, jars_first=(), **properties):
        path = [*jars_first, classes.main, classes.test, *classes.jars]
        given = ["-Dtests.strict=true", *(f"-D{name}={value}" for name, value in properties.items())]
        tests = [f"{PACKAGE}.{name}" for name in names]
        command = ["java", *JVM, *given, "-cp", os.pathsep.join(map(str, path)), "org.junit.runner.JUnitCore", *tests]
        done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        said = "\n".join(line for line in done.stdout.splitlines() if not line.startswith("VERBOSE:"))
        assert done.returncode == 0, said[-6000:]
        return said

    return run


def _needs_x86_64_linux():
    if sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip("Android's x86-64 libraries run on Linux x86-64")
