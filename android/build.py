"""Builds everything for devices, and reads it back: native libraries, Android library, the app's model, the app.

    python android/build.py [--out build/android]

Needs a JDK, Maven, aapt, zipalign and apksigner (Debian and Ubuntu:
`apt-get install default-jdk-headless maven aapt zipalign apksigner`) and, in the Python that runs this, keras-efficient
with the extras `tflite` and `cross`. No Android SDK, no NDK, no Gradle. Writes

    linux/MACHINE/libkeras_efficient.so      for boards and servers
    keras-efficient-VERSION.aar, .pom        the Android library
    jni/ABI/libkeras_efficient.so            its native libraries
    assets/                                  the app's model and sample pictures, made once
    keras-efficient-app.apk                  the app, signed with the debug key in debug.keystore
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ANDROID = Path(__file__).resolve().parent
ROOT = ANDROID.parent
sys.path[:0] = [str(path) for path in (ANDROID, ANDROID / "library", ROOT) if str(path) not in sys.path]

import aar  # noqa: E402
from apk import assemble, elf, maven, settings, tools, verify  # noqa: E402

from native import build, cross  # noqa: E402
from native.targets import TARGETS  # noqa: E402

APP = ANDROID / "app"
ACTIVITY = "io.github.kerasefficient.app.MainActivity"
# Tools that only look: what animal-sniffer compares with, and itself.
CHECKER = ("animal-sniffer", "asm")


def build_linux(out: Path) -> dict[str, Path]:
    """The delegate for Linux on every machine; libraries by target."""
    targets = [target for target in TARGETS.values() if not target.android]
    try:
        return {target.name: cross.cross_build(target, out / target.name) for target in targets}
    except (build.BuildError, OSError) as error:
        raise tools.BuildError(str(error)) from error


def make_assets(folder: Path) -> Path:
    """Trains and exports the app's model unless the folder is newer than the script that makes it."""
    script = APP / "make_assets.py"
    model = folder / "model.tflite"
    if not model.is_file() or model.stat().st_mtime < script.stat().st_mtime:
        print(tools.run(sys.executable, script, folder, cwd=ROOT).strip().splitlines()[-1])
    return folder


def app_files(assets: Path) -> assemble.App:
    """The app's sources and settings, with the assets that were made for it."""
    main = APP / "src/main"
    read = settings.read(ANDROID / "gradle.properties")
    return assemble.App(main / "AndroidManifest.xml", main / "java", main / "res", assets, read)


def build_app(library: Path, assets: Path, out: Path) -> tuple[Path, verify.Report]:
    """Assembles the APK and reads it back.

    Args:
        library: The AAR of the Android library.
        assets: Folder of `make_assets`.
        out: Folder for the APK and the key; what is made on the way lies in `work` below it.

    Raises:
        BuildError: If a step fails, or the APK is not as it should be.
    """
    app = app_files(assets)
    files = maven.files(APP / "pom.xml", "compile")
    kit = assemble.toolkit(files)
    kit = dataclasses.replace(kit, aars=(library, *kit.aars))
    work = out / "work"
    key = assemble.debug_key(out / "debug.keystore")
    apk = assemble.assemble(app, kit, work, out / "keras-efficient-app.apk", key)
    jars, _ = assemble.unpack(kit.aars, work)
    classes = [work / "classes", *jars]
    report = verify.verify(apk, app.settings, ACTIVITY, classes, kit.framework, assets)
    interface = maven.find(files, f"android-api-level-{app.settings.min_sdk}")
    checker = [file for file in files if file.parent.parent.name in CHECKER]
    missing = verify.api_violations(ANDROID / "apk/ApiCheck.java", checker, interface, classes)
    if missing:
        raise tools.BuildError(f"Android {app.settings.min_sdk} lacks what the app uses.\n" + "\n".join(missing))
    return apk, report


def build_all(out: Path) -> None:
    """Builds everything into the folder `out` and prints what each step made."""
    tools.check()
    started = time.monotonic()

    def say(*lines: object) -> None:
        print(f"[{time.monotonic() - started:4.0f} s]", *lines, flush=True)

    for library in build_linux(out / "linux").values():
        say(f"{library} ({library.stat().st_size:,} bytes)" + _pages(library))
    archive = aar.build_aar(out)
    for library in sorted((out / "jni").glob("*/*.so")):
        say(f"{library} ({library.stat().st_size:,} bytes)" + _pages(library))
    say(f"{archive} ({archive.stat().st_size:,} bytes)")
    say(make_assets(out / "assets"))
    apk, report = build_app(archive, out / "assets", out)
    say(f"{apk}\n{report}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build/android", help="the folder to write to")
    options = parser.parse_args(arguments)
    try:
        build_all(options.out.resolve())
    except tools.BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _pages(library: Path) -> str:
    return f", {elf.read(library.read_bytes()).page_size // 1024} KB pages"


if __name__ == "__main__":
    sys.exit(main())
