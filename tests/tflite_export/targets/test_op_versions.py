"""A file whose ops are newer than the library: refused with both versions, or run without our kernels."""

import numpy as np
import pytest
from flatbuffers import flexbuffers

from keras_efficient import tflite_export
from keras_efficient.tflite_export import flatbuffer


def of_version(content, number):
    """The file with another version in the attributes of `ke.multi_bit_dense`."""
    model = flatbuffer.parse(content)
    changed = 0
    for subgraph in model.subgraphs:
        for operator in subgraph.operators:
            code, custom = flatbuffer.operator_code(model, operator)
            options = operator.builtinOptions2 if code == flatbuffer.STABLEHLO_COMPOSITE else None
            if (custom or flatbuffer.text(getattr(options, "name", None))) != "ke.multi_bit_dense":
                continue
            encoded = operator.customOptions if options is None else options.compositeAttributes
            attributes = flexbuffers.Loads(bytearray(np.asarray(encoded, "uint8").tobytes()))
            written = np.frombuffer(flexbuffers.Dumps({**attributes, "version": number}), "uint8")
            if options is None:
                operator.customOptions = written
            else:
                options.compositeAttributes = written
            changed += 1
    assert changed == 1
    return flatbuffer.serialize(model)


@pytest.fixture(scope="module")
def files(exits, images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("versions")
    for form in ("custom", "composite"):
        tflite_export.export(exits, folder / f"{form}.tflite", ops=form, representative_data=images)
        newer = of_version((folder / f"{form}.tflite").read_bytes(), 99)
        (folder / f"{form}_99.tflite").write_bytes(newer)
    return folder


def test_custom_ops_are_refused_with_both_versions(files):
    with pytest.raises(ValueError, match=r"ke\.multi_bit_dense: Invalid op version\. Expected at most 2.*Received: 99"):
        tflite_export.load(files / "custom_99.tflite")


def test_composites_run_without_the_kernel(files, images):
    newer, same = (tflite_export.load(files / name) for name in ("composite_99.tflite", "composite.tflite"))
    assert (newer.delegated_ops, same.delegated_ops) == (0, 1)
    np.testing.assert_allclose(newer(images[:8]).output, same(images[:8]).output, atol=1e-4)
