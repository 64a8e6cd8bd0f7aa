"""Reads a built library back and says what is wrong with it for its target. Needs pyelftools.

    pip install pyelftools
    python -m native.readback build/native

looks at every folder that `python -m native.cross --all --out build/native` wrote.
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import os
import pathlib
import sys
from collections.abc import Sequence

from elftools.elf.constants import P_FLAGS
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection
from elftools.elf.sections import ARMAttributesSection, SymbolTableSection

from .cross import EXPORTS, JNI_EXPORTS, LIBRARY
from .targets import GLIBC, TARGETS, Target, bionic_symbols

GLIBC_LIBRARIES = {"libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0"}
GLIBC_FURTHER_SYMBOLS = {"aligned_alloc", "bcmp"}  # beyond those that Android has, too


@dataclasses.dataclass(frozen=True)
class Library:
    """What a shared library says of itself.

    Attributes:
        machine: `e_machine`, as pyelftools names it.
        bits: 32 or 64.
        soname: Its own name.
        needed: The libraries that it needs.
        tags: The kinds of entries in its dynamic section.
        exports: The functions and data that others find in it.
        undefined: What it expects of other libraries.
        versions: The symbol versions that it expects, by library.
        alignments: Of its loaded segments.
        relro_ends: Where the segments end that become read-only once the library is loaded.
        writable_code: Whether a segment may be written and executed, the stack included.
        segments: The kinds of its segments.
        hard_float: Whether calls pass floating-point numbers in registers of their own; of 32-bit arm only.
    """

    machine: str
    bits: int
    soname: str
    needed: list[str]
    tags: set[str]
    exports: set[str]
    undefined: set[str]
    versions: dict[str, set[str]]
    alignments: list[int]
    relro_ends: list[int]
    writable_code: bool
    segments: set[str]
    hard_float: bool


def read(path: os.PathLike[str] | str) -> Library:
    """Reads a shared library's headers and dynamic section."""
    with open(path, "rb") as file:
        elf = ELFFile(file)
        sections = list(elf.iter_sections())
        segments = list(elf.iter_segments())
        (dynamic,) = (section for section in sections if isinstance(section, DynamicSection))
        tags = list(dynamic.iter_tags())
        (table,) = (s for s in sections if isinstance(s, SymbolTableSection) and s.name == ".dynsym")
        symbols = [symbol for symbol in table.iter_symbols() if symbol.name]
        versions = {
            needed.name: {version.name for version in needed_versions}
            for section in sections
            if isinstance(section, GNUVerNeedSection)
            for needed, needed_versions in section.iter_versions()
        }
        attributes = [
            attribute
            for section in sections
            if isinstance(section, ARMAttributesSection)
            for subsection in section.iter_subsections()
            for part in subsection.iter_subsubsections()
            for attribute in part.iter_attributes()
        ]
        loaded = [segment for segment in segments if segment["p_type"] == "PT_LOAD"]
        both = P_FLAGS.PF_W | P_FLAGS.PF_X
        stacks = [segment["p_flags"] for segment in segments if segment["p_type"] == "PT_GNU_STACK"]
        return Library(
            machine=elf["e_machine"],
            bits=elf.elfclass,
            soname="".join(tag.soname for tag in tags if tag.entry.d_tag == "DT_SONAME"),
            needed=[tag.needed for tag in tags if tag.entry.d_tag == "DT_NEEDED"],
            tags={str(tag.entry.d_tag) for tag in tags},
            exports={symbol.name for symbol in symbols if symbol["st_shndx"] != "SHN_UNDEF"},
            undefined={symbol.name for symbol in symbols if symbol["st_shndx"] == "SHN_UNDEF"},
            versions=versions,
            alignments=[segment["p_align"] for segment in loaded],
            relro_ends=[s["p_vaddr"] + s["p_memsz"] for s in segments if s["p_type"] == "PT_GNU_RELRO"],
            writable_code=any(segment["p_flags"] & both == both for segment in loaded)
            or not stacks
            or any(flags & P_FLAGS.PF_X for flags in stacks),
            segments={str(segment["p_type"]) for segment in segments},
            hard_float=any(a.tag == "TAG_ABI_VFP_ARGS" and a.value == 1 for a in attributes),
        )


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.removeprefix("GLIBC_").split("."))


def _android_problems(library: Library, target: Target) -> list[str]:
    offered = bionic_symbols()
    here = {name for needed in library.needed for name in offered.get(needed, ())}
    problems = [f"needs {name}, which Android lacks" for name in library.needed if name not in offered]
    problems += [f"expects {name} of its libraries" for name in sorted(library.undefined - here)]
    problems += [f"has no {tag}" for tag in ("DT_HASH", "DT_GNU_HASH") if tag not in library.tags]
    problems += [
        f"has segments aligned to {alignment} bytes, not to {target.page_size}"
        for alignment in library.alignments
        if alignment % target.page_size
    ]
    if any(end % target.page_size for end in library.relro_ends):
        problems.append("becomes read-only up to the middle of a page, which Android rounds up")
    if "PT_TLS" in library.segments:
        problems.append("has thread-local storage, which Android knows since API 29 only")
    return problems


def _linux_problems(library: Library) -> list[str]:
    known = {name for names in bionic_symbols().values() for name in names} | GLIBC_FURTHER_SYMBOLS
    problems = [f"needs {name}" for name in library.needed if name not in GLIBC_LIBRARIES]
    problems += [f"expects {name} of its libraries" for name in sorted(library.undefined - known)]
    for versions in library.versions.values():
        for version in sorted(versions):
            if not version.startswith("GLIBC_") or _release(version) > _release(GLIBC):
                problems.append(f"needs {version}, newer than GLIBC_{GLIBC}")
    return problems


def problems_of(path: os.PathLike[str] | str, target: Target, jni: bool = False) -> list[str]:
    """What is wrong with a library, one line for each thing.

    Args:
        path: The shared library.
        target: The machine that it was built for.
        jni: Whether it also has a Java binding.
    """
    library = read(path)
    problems = []
    for what, found, expected in [
        ("machine", library.machine, target.elf_machine),
        ("bits", library.bits, target.bits),
        ("name", library.soname, pathlib.Path(path).name),
    ]:
        if found != expected:
            problems.append(f"has the {what} {found}, not {expected}")
    patterns = JNI_EXPORTS if jni else ()
    extra = {name for name in library.exports if not any(fnmatch.fnmatchcase(name, p) for p in (*EXPORTS, *patterns))}
    problems += [f"exports {name}" for name in sorted(extra)]
    problems += [f"does not export {name}" for name in sorted(set(EXPORTS) - library.exports)]
    if jni and not any(name.startswith("Java_") or name == "JNI_OnLoad" for name in library.exports):
        problems.append("exports nothing that Java finds")
    problems += [f"has {tag}" for tag in ("DT_TEXTREL", "DT_RPATH", "DT_RUNPATH") if tag in library.tags]
    if library.writable_code:
        problems.append("has memory that may be written and executed")
    if target.architecture == "arm" and library.hard_float == target.android:
        problems.append(f"passes floating-point numbers in {'' if target.android else 'no '}registers of their own")
    return problems + (_android_problems(library, target) if target.android else _linux_problems(library))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m native.readback", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=pathlib.Path, help="what native.cross wrote to")
    parser.add_argument("--jni", action="store_true", help="the libraries have a Java binding")
    options = parser.parse_args(arguments)
    found = [(target, options.folder / name / LIBRARY) for name, target in TARGETS.items()]
    found = [(target, path) for target, path in found if path.is_file()]
    if not found:
        print(f"No library found. Expected {LIBRARY} in folders of {options.folder}.", file=sys.stderr)
        return 1
    failed = False
    for target, path in found:
        problems = problems_of(path, target, jni=options.jni)
        failed = failed or bool(problems)
        print(f"{path}: {'; '.join(problems) or 'as it should be'}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
