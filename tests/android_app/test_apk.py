"""The app on this machine: its JUnit tests, and an APK with everything but native code of ours and a trained model."""

import dataclasses
import shutil
import zipfile
from pathlib import Path

import pytest

ANDROID = Path(__file__).resolve().parents[2] / "android"
MAIN = ANDROID / "app/src/main"
ACTIVITY = "io.github.kerasefficient.app.MainActivity"


@pytest.fixture(scope="module")
def app(assets):
    from apk import assemble, settings

    read = settings.read(ANDROID / "gradle.properties")
    return assemble.App(MAIN / "AndroidManifest.xml", MAIN / "java", MAIN / "res", assets, read)


@pytest.fixture(scope="module")
def kit(maven_files, library):
    from apk import assemble

    kit = assemble.toolkit([file for file in maven_files if "androidx" not in file.parts])
    return dataclasses.replace(kit, aars=(library, *kit.aars))


@pytest.fixture(scope="module")
def built(android_tools, app, kit, tmp_path_factory):
    """Folder of what was made, and the APK."""
    from apk import assemble

    work = tmp_path_factory.mktemp("apk")
    return work, assemble.assemble(app, kit, work, work / "app.apk", assemble.debug_key(work / "debug.keystore"))


@pytest.fixture(scope="module")
def classes(built, kit):
    from apk import assemble

    return [built[0] / "classes", *assemble.unpack(kit.aars, built[0])[0]]


@pytest.fixture
def verified(app, kit, classes):
    """`verified(apk, changed=...)`: the report on an APK, other expectations than the app's by name."""
    from apk import verify

    def call(apk, **changed):
        expected = {
            "settings": app.settings,
            "activity": ACTIVITY,
            "jars": classes,
            "framework": kit.framework,
            "assets": app.assets,
        }
        return verify.verify(apk, **{**expected, **changed})

    return call


def test_screen_and_its_logic(android_tools, app, maven_files, library, tmp_path):
    from apk import unit_tests

    assert unit_tests.run(app, maven_files, [library], ANDROID / "app/src/test/java", tmp_path) > 40


def test_apk_is_what_it_should_be(built, verified, app):
    report = verified(built[1])
    assert report.signature_schemes == ("v2", "v3")
    assert report.dex_version == 38  # of Android 8
    assert set(report.page_sizes) == {f"lib/{abi}/libtensorflowlite_jni.so" for abi in app.settings.abis}
    assert "model.tflite" in report.assets
    assert "samples/9.png" in report.assets


def test_everything_used_is_in_the_oldest_android(maven_files, classes, app):
    from apk import maven, verify

    checker = [file for file in maven_files if file.parent.parent.name in ("animal-sniffer", "asm")]
    interface = maven.find(maven_files, f"android-api-level-{app.settings.min_sdk}")
    assert verify.api_violations(ANDROID / "apk/ApiCheck.java", checker, interface, classes) == []


def test_something_newer_is_found(maven_files, app, kit, tmp_path):
    from apk import assemble, maven, verify

    source = tmp_path / "java/New.java"
    source.parent.mkdir()
    source.write_text("class New { Object f(android.app.Activity a) { return a.getOnBackInvokedDispatcher(); } }")
    assemble.compile_java([source.parent], [kit.framework], tmp_path / "classes")
    checker = [file for file in maven_files if file.parent.parent.name in ("animal-sniffer", "asm")]
    interface = maven.find(maven_files, f"android-api-level-{app.settings.min_sdk}")
    found = verify.api_violations(ANDROID / "apk/ApiCheck.java", checker, interface, [tmp_path / "classes"])
    assert any("getOnBackInvokedDispatcher" in line for line in found)


def test_what_is_not_as_expected_is_named(built, verified, app, tmp_path):
    from apk.tools import BuildError

    other = dataclasses.replace(app.settings, min_sdk=27)
    with pytest.raises(BuildError, match="the badge sdkVersion:'27'"):
        verified(built[1], settings=other)
    with pytest.raises(BuildError, match="the badge launchable-activity"):
        verified(built[1], activity="io.github.kerasefficient.app.Other")
    with pytest.raises(BuildError, match="every class once"):
        verified(built[1], jars=[built[0] / "classes"])
    assets = tmp_path / "assets"
    shutil.copytree(app.assets, assets)
    (assets / "model.tflite").write_bytes(b"another model")
    with pytest.raises(BuildError, match="assets/model.tflite as it was built"):
        verified(built[1], assets=assets)


def test_a_framework_that_lacks_classes_is_found(built, verified, tmp_path):
    from apk.tools import BuildError

    empty = tmp_path / "framework.jar"
    with zipfile.ZipFile(empty, "w"):
        pass
    with pytest.raises(BuildError, match=r"only classes that Android has.*android\.app\.Activity"):
        verified(built[1], framework=empty)


def test_changed_apk_is_refused(built, verified, tmp_path):
    from apk.tools import BuildError

    changed = tmp_path / "changed.apk"
    content = bytearray(built[1].read_bytes())
    content[content.index(bytes(range(256)))] ^= 1  # in the asset that stands for the model
    changed.write_bytes(content)
    with pytest.raises(BuildError, match="apksigner failed"):
        verified(changed)


def test_lambdas_are_refused_by_the_dexer(android_tools, kit, tmp_path):
    from apk import assemble
    from apk.tools import BuildError

    source = tmp_path / "java/Lambda.java"
    source.parent.mkdir()
    source.write_text("class Lambda { Runnable run = () -> { }; }")
    assemble.compile_java([source.parent], [kit.framework], tmp_path / "classes")
    with pytest.raises(BuildError):
        assemble.compile_dex([tmp_path / "classes"], kit, 24, tmp_path / "classes.dex")


def test_two_libraries_of_one_name_are_refused(kit, tmp_path):
    from apk import assemble
    from apk.tools import BuildError

    runtime = next(aar for aar in kit.aars if aar.name.startswith("tensorflow-lite-2"))
    again = tmp_path / "again.aar"
    shutil.copy(runtime, again)
    with pytest.raises(BuildError, match="Two libraries bring lib/arm64-v8a/libtensorflowlite_jni.so"):
        assemble.unpack((runtime, again), tmp_path)


def test_sources_that_do_not_compile_say_why(java, kit, tmp_path):
    from apk import assemble
    from apk.tools import BuildError

    source = tmp_path / "java/Wrong.java"
    source.parent.mkdir()
    source.write_text("class Wrong { int f() { return missing; } }")
    with pytest.raises(BuildError, match=r"javac failed[\s\S]*missing"):
        assemble.compile_java([source.parent], [kit.framework], tmp_path / "classes")
