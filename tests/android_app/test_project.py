"""What is written in more than one place is the same everywhere."""

import configparser
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from apk import settings, tools

ANDROID = Path(__file__).resolve().parents[2] / "android"
APP = ANDROID / "app"
NAMESPACE = "{http://maven.apache.org/POM/4.0.0}"


@pytest.fixture(scope="module")
def pom():
    root = ElementTree.parse(APP / "pom.xml").getroot()
    properties = {entry.tag.removeprefix(NAMESPACE): entry.text for entry in root.find(f"{NAMESPACE}properties")}
    versions = {}
    for dependency in root.iter(f"{NAMESPACE}dependency"):
        version = dependency.find(f"{NAMESPACE}version").text
        name = dependency.find(f"{NAMESPACE}artifactId").text
        versions[name] = re.sub(r"\$\{(.*?)\}", lambda match: properties[match[1]], version)
    return versions


@pytest.fixture(scope="module")
def properties():
    return settings.read(ANDROID / "gradle.properties")


def test_versions_of_gradle_and_maven(pom):
    gradle = (APP / "build.gradle").read_text()
    for name in ("junit", "robolectric"):
        assert re.search(rf"'[\w.]+:{name}:([\w.]+)'", gradle)[1] == pom[name]
    assert f"tensorflowLite={pom['tensorflow-lite']}\n" in (ANDROID / "gradle.properties").read_text()
    assert pom["tensorflow-lite-api"] == pom["tensorflow-lite"]


def test_version_of_the_package(properties):
    config = configparser.ConfigParser()
    config.read(ANDROID.parent / "setup.cfg")
    assert properties.version_name == config["metadata"]["version"]


def test_interface_of_the_oldest_android(pom, properties):
    assert f"android-api-level-{properties.min_sdk}" in pom


def test_every_text_and_view_is_there():
    main = APP / "src/main"
    code = "\n".join(file.read_text() for file in main.rglob("*.java"))
    layout = (main / "res/layout/main.xml").read_text()
    manifest = (main / "AndroidManifest.xml").read_text()
    strings = set(re.findall(r'<string name="(\w+)"', (main / "res/values/strings.xml").read_text()))
    used = set(re.findall(r"R\.string\.(\w+)", code)) | set(re.findall(r"@string/(\w+)", layout + manifest))
    assert used == strings
    assert set(re.findall(r"R\.id\.(\w+)", code)) == set(re.findall(r'android:id="@\+?id/(\w+)"', layout))


def test_settings_that_are_incomplete(tmp_path):
    file = tmp_path / "gradle.properties"
    file.write_text("namespace=a.b\nversionCode=one\n")
    with pytest.raises(tools.BuildError, match="incomplete"):
        settings.read(file)


def test_missing_programs_are_named_with_their_package():
    assert tools.missing(["no-such-program"]) == ["no-such-program"]
    with pytest.raises(tools.BuildError, match="Missing program: no-such-program"):
        tools.run("no-such-program")
    with pytest.raises(tools.BuildError, match="python3? failed with status 3.\nwords"):
        tools.run("python3", "-c", "print('words'); raise SystemExit(3)")
