"""Reads an APK back: what Android's own tools say of it, and what its files say of themselves."""

import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from apk import dex, elf, tools, zips
from apk.settings import Settings

SYSTEM = ("java.", "javax.", "dalvik.annotation.")  # of every Android, but not in the framework's jar


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        bytes: Size of the APK.
        classes: Number of classes.
        dex_version: Format of the dex file.
        signature_schemes: Such as `("v2", "v3")`.
        page_sizes: Largest page by native library.
        assets: Names of the assets.
    """

    bytes: int
    classes: int
    dex_version: int
    signature_schemes: tuple[str, ...]
    page_sizes: dict[str, int]
    assets: tuple[str, ...]

    def __str__(self) -> str:
        lines = [
            f"{self.bytes:,} bytes, signed with {' and '.join(self.signature_schemes)}",
            f"{self.classes} classes in dex format {self.dex_version:03d}",
            *(f"{name}: pages up to {size // 1024} KB" for name, size in sorted(self.page_sizes.items())),
            f"{len(self.assets)} assets: {', '.join(self.assets)}",
        ]
        return "\n".join(lines)


def verify(apk: Path, settings: Settings, activity: str, jars: Iterable[Path], framework: Path, assets: Path) -> Report:
    """Checks everything about an APK that can be checked without a phone.

    Args:
        apk: The APK.
        settings: What it must be.
        activity: Class that the launcher starts.
        jars: Folders or jars of all classes that must be in it.
        framework: Android's own classes, which it may use.
        assets: Folder whose files must be in it, byte for byte.

    Returns:
        What was found.

    Raises:
        BuildError: If something is not as it should be; the message names it.
    """
    schemes = signature_schemes(apk, settings.min_sdk)
    tools.run("zipalign", "-c", "-p", "4", apk)
    _expect(not (found := zips.misaligned(apk)), "every stored file aligned", "; ".join(found))
    _check_badging(tools.run("aapt", "dump", "badging", apk), settings, activity)
    manifest = tools.run("aapt", "dump", "xmltree", apk, "AndroidManifest.xml")
    loaded_in_place = re.search(r"extractNativeLibs\(\w+\)=\(type 0x12\)0x0\b", manifest) is not None
    _expect(loaded_in_place, "native libraries that are loaded from inside it", manifest)
    entries = zips.checked_entries(apk)
    code = dex.read(entries["classes.dex"])
    _check_classes(code, jars, framework)
    page_sizes = _check_libraries(entries, settings)
    for file in (path for path in assets.rglob("*") if path.is_file()):
        name = f"assets/{file.relative_to(assets).as_posix()}"
        _expect(entries.get(name) == file.read_bytes(), f"{name} as it was built", "another one, or none")
    return Report(
        bytes=apk.stat().st_size,
        classes=len(code.classes),
        dex_version=code.version,
        signature_schemes=schemes,
        page_sizes=page_sizes,
        assets=tuple(sorted(name[len("assets/") :] for name in entries if name.startswith("assets/"))),
    )


def signature_schemes(apk: Path, min_sdk: int) -> tuple[str, ...]:
    """The schemes by which `apksigner` verifies the signature, of which Android 7 and newer need v2 or later."""
    text = tools.run("apksigner", "verify", "-v", "--min-sdk-version", str(min_sdk), apk)
    schemes = tuple(re.findall(r"^Verified using (v[234]\S*) scheme .*: true$", text, re.MULTILINE))
    _expect("v2" in schemes or "v3" in schemes, "a signature of scheme v2 or v3", text)
    return schemes


def api_violations(checker: Path, class_path: Iterable[Path], signature: Path, classes: Iterable[Path]) -> list[str]:
    """What class files use although an Android version does not have it, one line each.

    Args:
        checker: `ApiCheck.java`.
        class_path: animal-sniffer and what it needs.
        signature: The version's interface, as animal-sniffer stores it.
        classes: Folders and jars to look at together.
    """
    path = ":".join(map(str, class_path))
    try:
        tools.run("java", "-cp", path, checker, signature, *classes)
    except tools.BuildError as error:
        found = [line for line in str(error).splitlines() if "Undefined reference" in line]
        if not found:
            raise
        return found
    return []


def class_names(classes: Path) -> set[str]:
    """Names of the classes in a folder or a jar."""
    if classes.is_dir():
        files = [path.relative_to(classes).as_posix() for path in classes.rglob("*.class")]
    else:
        with zipfile.ZipFile(classes) as archive:
            files = [name for name in archive.namelist() if name.endswith(".class")]
    return {name.removesuffix(".class").replace("/", ".") for name in files}


def _expect(holds: bool, expected: str, received: str) -> None:
    if not holds:
        raise tools.BuildError(f"The APK is not as it should be. Expected {expected}. Received: {received}")


def _check_badging(text: str, settings: Settings, activity: str) -> None:
    lines = (
        f"package: name='{settings.namespace}' versionCode='{settings.version_code}' "
        f"versionName='{settings.version_name}'",
        f"sdkVersion:'{settings.min_sdk}'",
        f"targetSdkVersion:'{settings.target_sdk}'",
        f"launchable-activity: name='{activity}'",
        "native-code: " + " ".join(f"'{abi}'" for abi in sorted(settings.abis)),
    )
    for line in lines:
        _expect(any(found.startswith(line) for found in text.splitlines()), f"the badge {line}", text)


def _check_classes(code: dex.Dex, jars: Iterable[Path], framework: Path) -> None:
    wanted = set().union(*map(class_names, jars))
    _expect(code.classes == wanted, "every class once", f"in one only: {sorted(code.classes ^ wanted)}")
    known = code.classes | class_names(framework)
    missing = sorted(name for name in code.types - known if not name.startswith(SYSTEM))
    _expect(not missing, "only classes that Android has or the APK brings", ", ".join(missing))


def _check_libraries(entries: dict[str, bytes], settings: Settings) -> dict[str, int]:
    page_sizes = {}
    names: dict[str, set[str]] = {abi: set() for abi in settings.abis}
    for path, content in entries.items():
        if path.startswith("lib/"):
            _, abi, name = path.split("/")
            header = elf.read(content)
            _expect(header.abi == abi, f"a library for {abi} at {path}", header.abi)
            _expect(abi in names, f"libraries for {settings.abis}", path)
            names[abi].add(name)
            page_sizes[path] = header.page_size
    same = len({frozenset(found) for found in names.values()}) == 1
    _expect(same, "the same libraries for every ABI", str(names))
    return page_sizes
