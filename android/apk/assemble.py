"""From sources, resources, assets and AARs to a signed APK."""

import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from apk import maven, tools, zips
from apk.settings import Settings

KEY_PASSWORD = "android"  # of a debug key, which every Android developer knows
MODEL_ALIGNMENT = 16  # what TFLite expects of constants in a file that is mapped


@dataclass(frozen=True)
class App:
    """An app's own files.

    Attributes:
        manifest: `AndroidManifest.xml` without package, versions and SDK levels.
        java: Folder of Java sources.
        resources: Folder `res`.
        assets: Folder of files that go into the APK as they are.
        settings: Package, versions, SDK levels, ABIs.
    """

    manifest: Path
    java: Path
    resources: Path
    assets: Path
    settings: Settings


@dataclass(frozen=True)
class Toolkit:
    """Files from Maven Central.

    Attributes:
        framework: Android's classes and resources.
        dx: The compiler from class files to dex.
        aars: Android libraries.
    """

    framework: Path
    dx: Path
    aars: tuple[Path, ...]


def toolkit(files: list[Path]) -> Toolkit:
    """Picks the toolkit among what Maven found for the app."""
    aars = tuple(path for path in files if path.suffix == ".aar")
    return Toolkit(maven.find(files, "android-all"), maven.find(files, "dalvik-dx"), aars)


def compile_resources(app: App, kit: Toolkit, work: Path) -> Path:
    """Compiles manifest, resources and assets into `work/resources.apk`, and writes `R.java` below `work/generated`."""
    generated = work / "generated"
    generated.mkdir(parents=True, exist_ok=True)
    manifest = generated / "AndroidManifest.xml"
    settings = app.settings
    text = app.manifest.read_text().replace("<manifest", f'<manifest package="{settings.namespace}"', 1)
    # Libraries are loaded from where they lie in the APK.
    manifest.write_text(text.replace("<application", '<application android:extractNativeLibs="false"', 1))
    output = work / "resources.apk"
    tools.run(
        *("aapt", "package", "-f", "-m", "-J", generated, "-M", manifest, "-S", app.resources, "-A", app.assets),
        *("-I", kit.framework, "-F", output),
        *("--version-code", str(settings.version_code), "--version-name", settings.version_name),
        *("--min-sdk-version", str(settings.min_sdk), "--target-sdk-version", str(settings.target_sdk)),
    )
    return output


def unpack(aars: tuple[Path, ...], work: Path) -> tuple[list[Path], dict[str, Path]]:
    """Unpacks AARs: their jars of classes, and their native libraries by path in the APK.

    Raises:
        BuildError: If two of them bring the same library.
    """
    jars: list[Path] = []
    libraries: dict[str, Path] = {}
    for aar in aars:
        folder = work / "aars" / aar.stem
        shutil.rmtree(folder, ignore_errors=True)
        with zipfile.ZipFile(aar) as archive:
            archive.extractall(folder)
        jars += [folder / "classes.jar", *sorted((folder / "libs").glob("*.jar"))]
        for library in sorted((folder / "jni").glob("*/*.so")):
            name = f"lib/{library.parent.name}/{library.name}"
            if name in libraries:
                raise tools.BuildError(f"Two libraries bring {name}: {libraries[name]} and {library}")
            libraries[name] = library
    return jars, libraries


def compile_java(sources: list[Path], class_path: list[Path], output: Path) -> None:
    """Compiles for what the dexer takes: Java 8, without its lambdas, which would need a run-time library."""
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    files = sorted(file for folder in sources for file in folder.rglob("*.java"))
    path = ":".join(map(str, class_path))
    lint = "-Xlint:all,-options,-classfile,-processing"
    tools.run("javac", "--release", "8", lint, "-Werror", "-encoding", "UTF-8", "-cp", path, "-d", output, *files)


def compile_dex(classes: list[Path], kit: Toolkit, min_sdk: int, output: Path) -> None:
    """Compiles class files and jars into one dex file."""
    dx = ("java", "-cp", kit.dx, "com.android.dx.command.Main", "--dex", f"--min-sdk-version={min_sdk}")
    tools.run(*dx, f"--output={output}", *classes)


def debug_key(path: Path) -> Path:
    """A key to sign with, made if it is not there; good for installing by hand, not for a store."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        store = ("-keystore", path, "-storetype", "PKCS12", "-storepass", KEY_PASSWORD, "-alias", "debug")
        name = ("-dname", "CN=Android Debug", "-keyalg", "RSA", "-keysize", "2048", "-validity", "10950")
        tools.run("keytool", "-genkeypair", *store, *name)
    return path


def assemble(app: App, kit: Toolkit, work: Path, output: Path, key: Path) -> Path:
    """Builds the APK; it appears whole or not at all.

    Args:
        app: The app's files.
        kit: Framework, dexer and AARs.
        work: Folder for what is made on the way: `classes`, `classes.dex`, `resources.apk`.
        output: The APK.
        key: Keystore of `debug_key`.

    Raises:
        BuildError: If a step fails; with what its program printed.
    """
    work.mkdir(parents=True, exist_ok=True)
    resources = compile_resources(app, kit, work)
    jars, libraries = unpack(kit.aars, work)
    compile_java([app.java, work / "generated"], [kit.framework, *jars], work / "classes")
    compile_dex([work / "classes", *jars], kit, app.settings.min_sdk, work / "classes.dex")
    entries = [*_resource_entries(resources), zips.Entry("classes.dex", (work / "classes.dex").read_bytes())]
    for name, library in sorted(libraries.items()):
        if name.split("/")[1] in app.settings.abis:
            entries.append(zips.Entry(name, library.read_bytes(), zips.PAGE))
    with tempfile.TemporaryDirectory(dir=work) as folder:
        unsigned, signed = Path(folder) / "unsigned.apk", Path(folder) / "signed.apk"
        zips.write(unsigned, entries)
        store = (
            "--ks",
            key,
            "--ks-pass",
            f"pass:{KEY_PASSWORD}",
            "--v1-signing-enabled",
            "false",
            "--v4-signing-enabled",
            "false",
        )
        sdk = ("--min-sdk-version", str(app.settings.min_sdk))
        tools.run("apksigner", "sign", *store, *sdk, "--in", unsigned, "--out", signed)
        output.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(signed, output)
    return output


def _resource_entries(resources: Path) -> list[zips.Entry]:
    """What aapt packed. The table of resources must be stored for Android 11, models so that they can be mapped."""
    entries = []
    with zipfile.ZipFile(resources) as archive:
        for info in archive.infolist():
            mapped = info.filename.endswith(".tflite")
            stored = info.compress_type == zipfile.ZIP_STORED or info.filename == "resources.arsc"
            alignment = MODEL_ALIGNMENT if mapped else 4 if stored else None
            entries.append(zips.Entry(info.filename, archive.read(info), alignment))
    return entries
