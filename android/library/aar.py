"""Builds the Android library without Gradle, Android SDK or NDK: one AAR with classes and native libraries.

    pip install ziglang
    python android/library/aar.py [--out build/android] [--abi arm64-v8a]

Needs a JDK and Maven. Equal sources and tools give an equal file, byte by byte. Writes, into the folder `--out`,

    keras-efficient-VERSION.aar     the library
    keras-efficient-VERSION.pom     what it depends on, for a Maven repository
    jni/ABI/libkeras_efficient.so   the native libraries, where the Gradle build looks for them
"""

from __future__ import annotations

import argparse
import configparser
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

LIBRARY = Path(__file__).resolve().parent
ROOT = LIBRARY.parents[1]
sys.path[:0] = [str(path) for path in (LIBRARY.parent, ROOT) if str(path) not in sys.path]

from apk import maven, tools, zips  # noqa: E402

from native import build, cross  # noqa: E402
from native.targets import ANDROID_API, TARGETS  # noqa: E402

PACKAGE = "io.github.kerasefficient"
ARTIFACT = "keras-efficient"
BINDING = LIBRARY / "src/main/cpp/keras_efficient_jni.c"
MACHINES = {"EM_ARM": 40, "EM_X86_64": 62, "EM_AARCH64": 183}
JAVA_8 = 52  # class file version
ABIS = {target.abi: target for target in TARGETS.values() if target.android}
MANIFEST = f"""<?xml version="1.0" encoding="utf-8"?>
<manifest xmlns:android="http://schemas.android.com/apk/res/android"
    package="{PACKAGE}">

    <uses-sdk android:minSdkVersion="{ANDROID_API}" />

</manifest>
"""
POM = """<?xml version="1.0" encoding="UTF-8"?>
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>{package}</groupId>
  <artifactId>{artifact}</artifactId>
  <version>{version}</version>
  <packaging>aar</packaging>
  <dependencies>
    <dependency>
      <groupId>org.tensorflow</groupId>
      <artifactId>tensorflow-lite</artifactId>
      <version>{tensorflow_lite}</version>
      <type>aar</type>
      <scope>compile</scope>
    </dependency>
  </dependencies>
</project>
"""


def version() -> str:
    """The package's version."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config["metadata"]["version"]


def class_path(work: Path) -> list[Path]:
    """Jars of what `pom.xml` says the library is compiled against; see `unpacked`.

    Raises:
        BuildError: If Maven is missing or cannot find something.
    """
    return unpacked(maven.files(LIBRARY / "pom.xml", "compile"), work)


def unpacked(files: Sequence[Path], work: Path) -> list[Path]:
    """Jars among Maven's files; those inside AARs are unpacked into `work`."""
    work.mkdir(parents=True, exist_ok=True)
    jars = []
    for file in files:
        if file.suffix == ".jar":
            jars.append(file)
        elif file.suffix == ".aar":
            jars.append(work / f"{file.stem}.jar")
            with zipfile.ZipFile(file) as archive:
                jars[-1].write_bytes(archive.read("classes.jar"))
    return jars


def compile_java(folder: Path, jars: Sequence[Path], output: Path, release: int = 8) -> None:
    """Compiles the sources below `folder` into `output`, warnings being errors.

    Raises:
        BuildError: With the compiler's words.
    """
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    files = sorted(folder.rglob("*.java"))
    path = os.pathsep.join(str(jar) for jar in jars)
    lint = ["-J-Xmx512m", "-Xlint:all,-options", "-Werror", "-encoding", "UTF-8", "-g:source,lines"]
    tools.run("javac", "--release", str(release), *lint, "-cp", path, "-d", output, *files)


def native_libraries(out: Path, abis: Sequence[str] = tuple(ABIS)) -> dict[str, Path]:
    """Cross-builds delegate and Java binding; the libraries by ABI.

    Raises:
        BuildError: If the compiler is missing or fails.
    """
    try:
        return {abi: cross.cross_build(ABIS[abi], out / abi, [BINDING]) for abi in abis}
    except (build.BuildError, OSError, subprocess.SubprocessError) as error:
        raise tools.BuildError(str(error)) from error


def pack(output: Path, classes: Path, libraries: Mapping[str, Path]) -> Path:
    """Writes the AAR from compiled classes and libraries by ABI; it appears whole or not at all."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        jar = Path(folder) / "classes.jar"
        files = sorted(file for file in classes.rglob("*") if file.is_file())
        zips.write(jar, [zips.Entry(file.relative_to(classes).as_posix(), file.read_bytes()) for file in files])
        contents = {
            "AndroidManifest.xml": MANIFEST.encode(),
            "LICENSE": (ROOT / "LICENSE").read_bytes(),
            "R.txt": b"",
            "classes.jar": jar.read_bytes(),
            "proguard.txt": (LIBRARY / "proguard.txt").read_bytes(),
            **{f"jni/{abi}/{library.name}": library.read_bytes() for abi, library in libraries.items()},
        }
        packed = Path(folder) / output.name
        zips.write(packed, [zips.Entry(name, contents[name]) for name in sorted(contents)])
        os.replace(packed, output)
    return output


def check(aar: Path, abis: Sequence[str] = tuple(ABIS)) -> None:
    """Reads an AAR back: its entries, class files and the headers of its libraries.

    Raises:
        BuildError: One sentence on what is wrong with it.
    """
    entries = _entries(aar, aar)
    libraries = {f"jni/{abi}/{cross.LIBRARY}" for abi in abis}
    expected = {"AndroidManifest.xml", "LICENSE", "R.txt", "classes.jar", "proguard.txt", *libraries}
    if set(entries) != expected:
        raise tools.BuildError(f"Expected the entries {sorted(expected)} in {aar}. Received: {sorted(entries)}")
    for abi in abis:
        header = entries[f"jni/{abi}/{cross.LIBRARY}"][:20]
        target = ABIS[abi]
        identity = b"\x7fELF" + bytes([1 if target.bits == 32 else 2])
        if header[:5] != identity or int.from_bytes(header[18:20], "little") != MACHINES[target.elf_machine]:
            raise tools.BuildError(f"Expected a library for {abi} in {aar}. Received: one that begins with {header!r}")
    with tempfile.TemporaryDirectory() as folder:
        jar = Path(folder) / "classes.jar"
        jar.write_bytes(entries["classes.jar"])
        classes = _entries(jar, aar)
    compiled = {name for name in classes if "$" not in name}
    sources = (LIBRARY / "src/main/java").rglob("*.java")
    named = {file.relative_to(LIBRARY / "src/main/java").with_suffix(".class").as_posix() for file in sources}
    if compiled != named:
        raise tools.BuildError(f"Expected the classes {sorted(named)} in {aar}. Received: {sorted(compiled)}")
    for name, content in classes.items():
        if content[:4] != b"\xca\xfe\xba\xbe" or int.from_bytes(content[6:8], "big") != JAVA_8:
            raise tools.BuildError(f"Expected class files of Java 8 in {aar}. Received: {name} with {content[:8]!r}")


def _entries(archive: Path, aar: Path) -> dict[str, bytes]:
    """The entries of an AAR or of an archive inside it."""
    try:
        return zips.checked_entries(archive)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise tools.BuildError(f"{archive.name} of {aar} cannot be read: {error}") from error


def build_aar(out: Path, abis: Sequence[str] = tuple(ABIS)) -> Path:
    """Builds the AAR with its pom and native libraries into the folder `out`, and reads it back.

    Raises:
        BuildError: If a program is missing or fails.
    """
    tools.check(["javac", "mvn"])
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        jars = class_path(work / "jars")
        compile_java(LIBRARY / "src/main/java", jars, work / "classes")
        libraries = native_libraries(out / "jni", abis)
        aar = pack(out / f"{ARTIFACT}-{version()}.aar", work / "classes", libraries)
    check(aar, abis)
    names = {
        "package": PACKAGE,
        "artifact": ARTIFACT,
        "version": version(),
        "tensorflow_lite": tensorflow_lite_version(),
    }
    aar.with_suffix(".pom").write_text(POM.format(**names))
    return aar


def tensorflow_lite_version() -> str:
    """The version of TensorFlow Lite that the library is compiled against."""
    text = (LIBRARY / "pom.xml").read_text()
    return text.partition("<tensorflow-lite.version>")[2].partition("<")[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build/android", help="the folder to write to")
    parser.add_argument(
        "--abi", action="append", choices=sorted(ABIS), help="an ABI; may be given again; all by default"
    )
    options = parser.parse_args(arguments)
    try:
        aar = build_aar(options.out, options.abi or tuple(ABIS))
    except tools.BuildError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{aar} ({aar.stat().st_size} bytes)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
