"""Builds the shared library for other machines with Zig's C compiler: no NDK, no sysroot, one command for all.

    pip install ziglang
    python -m native.cross --all --out build/native
    python -m native.cross --target android-arm64-v8a --extra android/library/src/main/cpp/*.c --out build/native

Every target gets a folder of its name with `libkeras_efficient.so` in it. `--extra` compiles further C files into the
library, those of a Java binding for example: their `JNI_On*` and `Java_*` are exported, too.

For Android the only headers are those of `native/bionic/include`, which declare what the library uses as Android has
it, and the only libraries to link with are stubs of what `native/bionic/symbols.txt` lists: a function that is not
there is an error here, not on the phone.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from . import build
from .compiler_rt import arm_helpers
from .targets import BIONIC, TARGETS, Target, bionic_symbols

LIBRARY = build.DEFAULT_OUTPUT.name
EXPORTS = ("tflite_plugin_create_delegate", "tflite_plugin_destroy_delegate")
JNI_EXPORTS = ("JNI_On*", "Java_*")
LINK_FLAGS = ["-z,noexecstack", "-z,relro", "-z,now", "-z,defs", "--gc-sections", "--build-id=sha1", "-s"]
EMULATION = {"aarch64": "aarch64linux", "arm": "armelf_linux_eabi", "x86_64": "elf_x86_64"}


def find_zig() -> list[str]:
    """The command of Zig: `ZIG`, the Python package ziglang, or zig on the path.

    Raises:
        BuildError: there is none.
    """
    if os.environ.get("ZIG"):
        return [os.environ["ZIG"]]
    try:
        import ziglang
    except ImportError:
        found = shutil.which("zig")
    else:
        found = str(pathlib.Path(ziglang.__file__).with_name("zig"))
    if found is None:
        raise build.BuildError("No Zig found. Expected the Python package ziglang; run `pip install ziglang`.")
    return [found]


def compiler_headers(zig: Sequence[str]) -> pathlib.Path:
    """The folder of the headers that belong to the compiler itself: stdint.h, arm_neon.h and such."""
    executable = pathlib.Path(shutil.which(zig[0]) or zig[0]).resolve()
    for folder in (executable.parent / "lib" / "include", executable.parent.parent / "lib" / "zig" / "include"):
        if (folder / "stdint.h").is_file():
            return folder
    raise build.BuildError(f"Zig's own headers are missing. Expected lib/include beside {executable}.")


def jni_headers() -> list[pathlib.Path]:
    """The folders of `jni.h`: of `JAVA_HOME`, or of the JDK whose javac is on the path.

    Raises:
        BuildError: there is no JDK.
    """
    javac = shutil.which("javac")
    homes = [pathlib.Path(home) for home in (os.environ.get("JAVA_HOME"),) if home]
    homes += [pathlib.Path(javac).resolve().parents[1]] if javac else []
    for home in homes:
        if (home / "include" / "jni.h").is_file():
            return [home / "include", home / "include" / "linux"]
    raise build.BuildError("No jni.h found. Expected a JDK in JAVA_HOME or with its javac on the path.")


def uses_jni(files: Sequence[pathlib.Path]) -> bool:
    """Whether any of these files includes `jni.h`."""
    return any("<jni.h>" in file.read_text() for file in files)


def version_script(folder: pathlib.Path, exports: Sequence[str]) -> pathlib.Path:
    """Writes the linker's list of what the library shows to others."""
    script = folder / "exports.map"
    script.write_text("{ global: " + " ".join(f"{name};" for name in exports) + " local: *; };\n")
    return script


def stub_libraries(folder: pathlib.Path, zig: Sequence[str], target: Target) -> list[str]:
    """Libraries of the names and functions that Android's have, to link with; nothing of them ends up in the result."""
    stubs = []
    for library, names in bionic_symbols().items():
        source, compiled, stub = (folder / f"{library}{ending}" for ending in (".S", ".stub.o", ""))
        lines = [f".globl {name}\n.type {name}, %function\n{name}:" for name in names]
        source.write_text("\n".join([".text", *lines, ""]))
        build.run([*zig, "clang", "-target", target.triple, "-c", str(source), "-o", str(compiled)])
        link = ["-m", EMULATION[target.architecture], "-shared", "--soname", library]
        build.run([*zig, "ld.lld", *link, str(compiled), "-o", str(stub)])
        stubs.append(str(stub))
    return stubs


def link_android(
    folder: pathlib.Path, zig: Sequence[str], target: Target, objects: Sequence[str], exports: Sequence[str], name: str
) -> pathlib.Path:
    """Links a library for Android that needs its system libraries only."""
    library = folder / name
    flags = [part for flag in LINK_FLAGS for part in flag.split(",")]
    flags += [f"-zmax-page-size={target.page_size}", f"-zcommon-page-size={target.page_size}", "--hash-style=both"]
    flags += ["--as-needed", "--exclude-libs=ALL"]
    flags += ["--fix-cortex-a53-843419"] if target.architecture == "aarch64" else []
    command = [*zig, "ld.lld", "-m", EMULATION[target.architecture], "-shared", "--soname", name, *flags]
    command += ["--version-script", str(version_script(folder, exports)), *objects]
    build.run([*command, *stub_libraries(folder, zig, target), "-o", str(library)])
    return library


def link_linux(
    folder: pathlib.Path, zig: Sequence[str], target: Target, objects: Sequence[str], exports: Sequence[str], name: str
) -> pathlib.Path:
    """Links a library for Linux against the oldest glibc of its target."""
    library = folder / name
    flags = [f"-Wl,{flag}" for flag in (*LINK_FLAGS, "--as-needed", f"-soname,{name}")]
    flags += [f"-Wl,--version-script={version_script(folder, exports)}"]
    command = [*zig, "cc", "-target", target.triple, *target.flags, *objects, *build.LINK_FLAGS, *flags]
    build.run([*command, "-o", str(library)])
    return library


def cross_build(
    target: Target,
    out: os.PathLike[str] | str,
    extra: Sequence[pathlib.Path] = (),
    includes: Sequence[pathlib.Path] = (),
    name: str = LIBRARY,
    zig: Sequence[str] | None = None,
) -> pathlib.Path:
    """Builds the library for `target` in the folder `out`, where it appears whole or not at all.

    Args:
        target: One of `TARGETS`.
        out: The folder to write to.
        extra: Further C files of the library.
        includes: Further folders of headers; those of `jni.h` are found when an extra file includes it.
        name: The library's file name.
        zig: The command of Zig, found by default.

    Raises:
        BuildError: there is no Zig, or a warning or error of its compiler or linker.
    """
    zig = find_zig() if zig is None else zig
    output = pathlib.Path(out)
    output.mkdir(parents=True, exist_ok=True)
    headers = [*includes, *(jni_headers() if uses_jni(extra) else [])]
    flags = [*target.flags, "-ffunction-sections", "-fdata-sections", "-g0", "-fno-stack-protector"]
    if target.android:
        system = ["-nostdinc", "-isystem", str(compiler_headers(zig)), "-isystem", str(BIONIC / "include")]
        cc = [*zig, "clang", "-target", target.triple, *system]
    else:
        cc = [*zig, "cc", "-target", target.triple]
    isa_flags = build.ISA_FLAGS[target.architecture] if target.isa_flags is None else target.isa_flags
    files = [*build.sources(target.architecture), *(file.resolve() for file in extra)]
    exports = (*EXPORTS, *JNI_EXPORTS) if uses_jni(extra) else EXPORTS
    with tempfile.TemporaryDirectory(dir=output) as temporary:
        folder = pathlib.Path(temporary)
        folders = [str(header) for header in headers]
        objects = build.compile_objects(folder, files, cc, flags, isa_flags=isa_flags, includes=folders)
        if target.architecture == "arm":
            runtime = compiler_headers(zig).parent / "compiler_rt.zig"
            symbols = ["bcmp", *(symbol for names in bionic_symbols().values() for symbol in names)]
            triple = "arm-linux-androideabi" if target.android else target.triple
            objects += arm_helpers(folder, zig, triple, runtime, symbols)
        library = (link_android if target.android else link_linux)(folder, zig, target, objects, exports, name)
        os.replace(library, output / name)
    return output / name


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m native.cross", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--target", action="append", choices=sorted(TARGETS), help="a machine; may be given again")
    parser.add_argument("--all", action="store_true", help="all machines")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="the folder that gets a folder for each target")
    parser.add_argument("--extra", nargs="+", default=[], type=pathlib.Path, help="further C files of the library")
    parser.add_argument("--include", action="append", default=[], type=pathlib.Path, help="a further folder of headers")
    parser.add_argument("--name", default=LIBRARY, help="the library's file name")
    options = parser.parse_args(arguments)
    if options.all == bool(options.target):
        parser.error("Expected either --all or --target.")
    try:
        for name in TARGETS if options.all else options.target:
            library = cross_build(TARGETS[name], options.out / name, options.extra, options.include, options.name)
            print(f"{library} ({library.stat().st_size} bytes)")
    except (build.BuildError, OSError, subprocess.SubprocessError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
