"""The AAR: built by one command, the same every time, read back; and the same dependencies for Gradle."""

from __future__ import annotations

import hashlib
import io
import pathlib
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "android" / "library"
ABIS = ("arm64-v8a", "armeabi-v7a", "x86_64")
ANDROID = "{http://schemas.android.com/apk/res/android}"


@pytest.fixture(scope="module")
def aar(classes):
    import aar

    return aar


@pytest.fixture(scope="module")
def built(aar, tmp_path_factory):
    """The folder that the command wrote, and what it printed."""
    pytest.importorskip("ziglang", reason="needs ziglang")
    folder = tmp_path_factory.mktemp("aar")
    command = [sys.executable, str(LIBRARY / "aar.py"), "--out", str(folder)]
    done = subprocess.run(command, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture
def stand_ins(aar, tmp_path):
    """Libraries by ABI that are nothing but a header."""
    libraries = {}
    for abi in ABIS:
        target = aar.ABIS[abi]
        header = bytearray(64)
        header[:5] = b"\x7fELF" + bytes([1 if target.bits == 32 else 2])
        header[18:20] = aar.MACHINES[target.elf_machine].to_bytes(2, "little")
        libraries[abi] = tmp_path / abi / "libkeras_efficient.so"
        libraries[abi].parent.mkdir()
        libraries[abi].write_bytes(header)
    return libraries


def contents(aar_file):
    with zipfile.ZipFile(aar_file) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_command_builds_what_it_says(built, aar):
    folder, said = built
    file = folder / f"keras-efficient-{aar.version()}.aar"
    assert str(file) in said
    entries = contents(file)
    assert list(entries) == sorted(entries)
    for abi in ABIS:
        library = entries[f"jni/{abi}/libkeras_efficient.so"]
        assert library == (folder / "jni" / abi / "libkeras_efficient.so").read_bytes()
    pom = ElementTree.parse(file.with_suffix(".pom")).getroot()
    names = {element.tag.split("}")[1]: element.text for element in pom.iter()}
    assert names["artifactId"] == "tensorflow-lite"  # the last one: that of the dependency
    assert names["version"] == aar.tensorflow_lite_version()


def test_native_libraries_export_java_and_delegate(built):
    elffile = pytest.importorskip("elftools.elf.elffile", reason="needs pyelftools")
    folder, _ = built
    methods = {"interfaceVersion", "ops", "create", "destroy", "delegate", "stat", "resetStats"}
    expected = {f"Java_io_github_kerasefficient_NativeLibrary_{name}" for name in methods}
    expected |= {"tflite_plugin_create_delegate", "tflite_plugin_destroy_delegate"}
    for abi in ABIS:
        elf = elffile.ELFFile(io.BytesIO((folder / "jni" / abi / "libkeras_efficient.so").read_bytes()))
        symbols = elf.get_section_by_name(".dynsym").iter_symbols()
        assert {symbol.name for symbol in symbols if symbol["st_shndx"] != "SHN_UNDEF" and symbol.name} == expected


def test_java_declares_what_c_defines():
    java = (LIBRARY / "src/main/java/io/github/kerasefficient/NativeLibrary.java").read_text()
    c = (LIBRARY / "src/main/cpp/keras_efficient_jni.c").read_text()
    assert set(re.findall(r"static native \S+ (\w+)\(", java)) == set(re.findall(r"JNIEXPORT \w+ METHOD\((\w+)\)", c))
    (in_java,) = re.findall(r"INTERFACE_VERSION = (\d+);", java)
    (in_c,) = re.findall(r"INTERFACE_VERSION = (\d+)", c)
    assert in_java == in_c
    for name in ("EXECUTED_MACS", "KERNEL_CALLS", "CLAIMED_OPS"):
        assert re.findall(rf"{name} = (\d)", java) == re.findall(rf"{name} = (\d)", c)


def test_equal_sources_give_an_equal_file(aar, classes, stand_ins, tmp_path):
    first = aar.pack(tmp_path / "first.aar", classes.main, stand_ins)
    again = tmp_path / "again"
    shutil.copytree(classes.main, again)  # other times of the files
    second = aar.pack(tmp_path / "second.aar", again, stand_ins)
    assert hashlib.sha256(first.read_bytes()).digest() == hashlib.sha256(second.read_bytes()).digest()
    aar.check(first)


def test_manifest_and_classes(aar, classes, stand_ins, tmp_path):
    entries = contents(aar.pack(tmp_path / "library.aar", classes.main, stand_ins))
    manifest = ElementTree.fromstring(entries["AndroidManifest.xml"])
    assert manifest.attrib["package"] == "io.github.kerasefficient"
    assert manifest.find("uses-sdk").attrib[f"{ANDROID}minSdkVersion"] == "21"
    names = zipfile.ZipFile(io.BytesIO(entries["classes.jar"])).namelist()
    for name in ("DynamicModel", "DynamicModel$Options", "KerasEfficientDelegate", "Budget", "Prediction", "ModelInfo"):
        assert f"io/github/kerasefficient/{name}.class" in names
    assert not [name for name in names if "Test" in name]
    assert b"NativeLibrary" in entries["proguard.txt"]


def test_what_is_wrong_is_found(aar, classes, stand_ins, tmp_path):
    from apk import tools, zips

    whole = contents(aar.pack(tmp_path / "library.aar", classes.main, stand_ins))
    damages = {
        "Expected the entries": {name: content for name, content in whole.items() if name != "R.txt"},
        "for arm64-v8a": {**whole, "jni/arm64-v8a/libkeras_efficient.so": whole["jni/x86_64/libkeras_efficient.so"]},
        "for armeabi-v7a": {**whole, "jni/armeabi-v7a/libkeras_efficient.so": b""},
        "cannot be read": {**whole, "classes.jar": b"no jar"},
    }
    for words, entries in damages.items():
        damaged = tmp_path / "damaged.aar"
        zips.write(damaged, [zips.Entry(name, content) for name, content in entries.items()])
        with pytest.raises(tools.BuildError, match=words):
            aar.check(damaged)
    cut = tmp_path / "cut.aar"
    cut.write_bytes((tmp_path / "library.aar").read_bytes()[:5000])
    with pytest.raises(tools.BuildError, match="cannot be read"):
        aar.check(cut)


def test_gradle_and_maven_agree():
    gradle = (LIBRARY / "build.gradle").read_text()
    pom = (LIBRARY / "pom.xml").read_text()
    properties = (ROOT / "android" / "gradle.properties").read_text()
    versions = dict(re.findall(r"<([\w-]+)\.version>([^<]+)<", pom))
    assert f"tensorflowLite={versions['tensorflow-lite']}" in properties
    assert f"?: '{versions['tensorflow-lite']}'" in gradle
    assert f"junit:junit:{versions['junit']}" in gradle
    assert f"org.json:json:{versions['json']}" in gradle
    assert "minSdk 21" in gradle
