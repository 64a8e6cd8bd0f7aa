"""Runs the app's JUnit tests on this machine, with Robolectric in the place of a phone."""

import re
import shutil
import zipfile
from pathlib import Path

from apk import assemble, maven, tools

# Small, and quick to start rather than quick in the end.
JVM = ("-Xmx1g", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
CONFIGURATION = "com/android/tools/test_config.properties"  # where Robolectric looks for what a build system made


def run(app: assemble.App, files: list[Path], aars: list[Path], tests: Path, work: Path) -> int:
    """Compiles the app and its tests, and runs all classes whose names end in `Test`.

    Args:
        app: The app.
        files: What its pom names in the scope `test`.
        aars: Further Android libraries.
        tests: Folder of the tests' Java sources.
        work: Folder for what is made on the way.

    Returns:
        The number of tests that passed.

    Raises:
        BuildError: If something does not compile or a test fails; with JUnit's report.
    """
    work.mkdir(parents=True, exist_ok=True)
    framework = maven.find(files, "android-all")
    resources = assemble.compile_resources(app, assemble.toolkit(files), work)
    jars = [path for path in files if path.suffix == ".jar" and path != framework]
    unpacked, _ = assemble.unpack((*aars, *(path for path in files if path.suffix == ".aar")), work)
    # The framework comes last: it brings classes of its own for things that tests bring, too.
    libraries = [*jars, *unpacked, framework]
    assemble.compile_java([app.java, work / "generated"], libraries, work / "classes")
    compiled = work / "test-classes"
    shutil.rmtree(compiled, ignore_errors=True)
    compiled.mkdir()
    sources = sorted(tests.rglob("*.java"))
    path = _joined([work / "classes", *libraries])
    tools.run("javac", "--release", "11", "-encoding", "UTF-8", "-proc:none", "-cp", path, "-d", compiled, *sources)
    _configure(app, resources, compiled, work)
    names = [
        ".".join(source.relative_to(tests).with_suffix("").parts) for source in sources if source.stem.endswith("Test")
    ]
    options = (
        "-Drobolectric.offline=true",
        f"-Drobolectric.dependency.dir={framework.parent}",
        "-Drobolectric.usePreinstrumentedJars=false",
    )
    path = _joined([compiled, work / "classes", *libraries])
    report = tools.run("java", *JVM, *options, "-cp", path, "org.junit.runner.JUnitCore", *names)
    passed = re.search(r"^OK \((\d+) tests?\)$", report, re.MULTILINE)
    if passed is None:
        raise tools.BuildError(f"JUnit reported no result.\n{report}")
    return int(passed[1])


def _configure(app: assemble.App, resources: Path, compiled: Path, work: Path) -> None:
    """Tells Robolectric of the manifest and of the compiled resources, in which it finds the assets, too."""
    assets = work / "assets"
    with zipfile.ZipFile(resources) as archive:
        archive.extractall(assets, [name for name in archive.namelist() if name.startswith("assets/")])
    entries = {
        "android_merged_manifest": work / "generated" / "AndroidManifest.xml",
        "android_resource_apk": resources,
        "android_merged_assets": assets / "assets",
        "android_custom_package": app.settings.namespace,
    }
    file = compiled / CONFIGURATION
    file.parent.mkdir(parents=True)
    file.write_text("".join(f"{key}={value}\n" for key, value in entries.items()))


def _joined(paths: list[Path]) -> str:
    return ":".join(map(str, paths))
