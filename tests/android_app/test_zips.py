"""Archives whose stored entries are aligned, read back with zipfile and by hand."""

import zipfile

import pytest
from apk import zips
from hypothesis import given, settings
from hypothesis import strategies as st

CONTENTS = {"a.txt": b"a" * 1000, "lib/x86_64/lib.so": b"\x7fELF" + bytes(5000), "model.tflite": b"model"}


def write(path, alignments):
    zips.write(path, [zips.Entry(name, CONTENTS[name], alignments.get(name)) for name in CONTENTS])
    return path


def test_alignment(tmp_path):
    path = write(tmp_path / "x.zip", {"lib/x86_64/lib.so": zips.PAGE, "model.tflite": 16})
    content = path.read_bytes()
    assert content.index(b"\x7fELF") % 16384 == 0
    assert content.index(b"model", content.index(b"\x7fELF") + 5004 + 42) % 16 == 0
    assert zips.misaligned(path) == []
    assert zips.checked_entries(path) == CONTENTS


def test_compressed_unless_aligned(tmp_path):
    with zipfile.ZipFile(write(tmp_path / "x.zip", {"model.tflite": 4})) as archive:
        kinds = {info.filename: info.compress_type for info in archive.infolist()}
        assert archive.getinfo("a.txt").compress_size < 50
    assert kinds["a.txt"] == zipfile.ZIP_DEFLATED
    assert kinds["model.tflite"] == zipfile.ZIP_STORED


def test_misaligned_is_named(tmp_path):
    found = zips.misaligned(write(tmp_path / "x.zip", {"lib/x86_64/lib.so": 4096}))
    assert len(found) == 2
    assert found[0].startswith("lib/x86_64/lib.so begins at byte 4096, no multiple of 16384")
    assert found[1] == "model.tflite is compressed"


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.binary(max_size=200), st.sampled_from([None, 1, 4, 16, 4096])), max_size=8),
    st.text(st.characters(codec="utf-8", exclude_characters="\0\\/:"), max_size=5),
)
def test_any_content(tmp_path_factory, parts, stem):
    path = tmp_path_factory.mktemp("zip") / "x.zip"
    entries = [zips.Entry(f"{stem}{number}", content, align) for number, (content, align) in enumerate(parts)]
    zips.write(path, entries)
    assert zips.checked_entries(path) == {entry.name: entry.content for entry in entries}
    with zipfile.ZipFile(path) as archive:
        for entry in entries:
            if entry.alignment:
                assert zips.offset(path, archive.getinfo(entry.name)) % entry.alignment == 0


def test_equal_contents_give_equal_files(tmp_path):
    first, second = write(tmp_path / "1.zip", {}), write(tmp_path / "2.zip", {})
    assert first.read_bytes() == second.read_bytes()


def test_double_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match="unique names"):
        zips.write(tmp_path / "x.zip", [zips.Entry("a", b"1"), zips.Entry("a", b"2")])


def test_damage_is_found(tmp_path):
    path = write(tmp_path / "x.zip", {"model.tflite": 4})
    content = bytearray(path.read_bytes())
    content[content.rindex(b"model", 0, content.index(b"PK\1\2"))] ^= 1  # before the directory: the stored content
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        zips.checked_entries(path)
