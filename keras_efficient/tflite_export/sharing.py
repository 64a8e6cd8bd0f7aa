"""Writing flatbuffers in which equal parts are stored once.

A flatbuffer's tables, vectors and strings are found by offsets, so one of them may be referred to from many places.
Decompositions of the same op consist of mostly the same operators, and most of their tensors are alike: as ordinary
writers write them out each time, they would be larger than the packed weights of a small network.
"""
# ruff: noqa: N802, N815 (names of the class that is extended)

import functools
from typing import Any

from keras_efficient.tflite_export.extras import require


@functools.cache
def builder_class() -> Any:
    """`flatbuffers.Builder` that forgets an object as soon as it is finished, if an equal one is there already."""
    base: Any = require("flatbuffers", "tflite").Builder

    class SharingBuilder(base):
        """A table or vector is known by its bytes, its fields' places, and what its offsets lead to."""

        current_vtable: Any
        vectorNumElems: Any

        def __init__(self, size: int = 1024) -> None:
            super().__init__(size)
            self._known: dict[Any, int] = {}
            self._begin()

        def _begin(self) -> None:
            """Notes where the next object begins, what fills up to its start, its offsets and how it is aligned."""
            self._before = self._start = int(self.Offset())
            self._is_empty = True
            self._links: list[tuple[int, int]] = []
            self._alignment = 1

        def Prep(self, size: int, additional_bytes: int) -> None:
            self._alignment = max(self._alignment, size)
            super().Prep(size, additional_bytes)
            if self._is_empty:
                self._start, self._is_empty = int(self.Offset()), False

        def PrependUOffsetTRelative(self, offset: int) -> None:
            super().PrependUOffsetTRelative(offset)
            self._links.append((int(self.Offset()), offset))

        def StartObject(self, fields: int) -> None:
            self._begin()
            super().StartObject(fields)

        def StartVector(self, *sizes: int) -> int:
            self._begin()
            self._start = int(super().StartVector(*sizes))
            return self._start

        def CreateString(self, *arguments: Any, **options: Any) -> int:
            self._begin()
            return int(super().CreateString(*arguments, **options))

        def CreateByteVector(self, content: bytes) -> int:
            self._begin()
            return int(super().CreateByteVector(content))

        def EndObject(self) -> int:
            key = self._key("table", *(place and place - self._start for place in self.current_vtable))
            if key in self._known:
                self.current_vtable = None
                return self._take_back(key)
            self._known[key] = int(super().EndObject())
            return self._known[key]

        def EndVector(self, *arguments: Any) -> int:
            key = self._key("vector", self.vectorNumElems)
            if key in self._known:
                self.vectorNumElems = None
                return self._take_back(key)
            self._known[key] = int(super().EndVector(*arguments))
            return self._known[key]

        def _key(self, *kind: Any) -> Any:
            """What equal objects have in common: an offset counts as what it leads to, wherever it stands."""
            here, targets = int(self.Offset()), []
            content = bytearray(self.Bytes[int(self.Head()) : len(self.Bytes) - self._start])
            for place, target in self._links:
                content[here - place : here - place + 4] = bytes(4)
                targets.append((place - self._start, target))
            return (kind, self._alignment, bytes(content), tuple(targets))

        def _take_back(self, key: Any) -> int:
            """Drops what was written of the object at hand, and returns where its equal is."""
            self.head = len(self.Bytes) - self._before
            self.nested = False
            return self._known[key]

    return SharingBuilder
