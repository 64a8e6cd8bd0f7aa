import dataclasses
import pathlib

import keras
import numpy as np
import pytest

from keras_efficient import ops
from keras_efficient.ops import Argument, Attributes, attribute, c_header, choice, registry
from keras_efficient.ops.context import execution_mask


@dataclasses.dataclass(frozen=True)
class Numbers(Attributes):
    whole: int = attribute(3, minimum=-2, maximum=7)
    real: float = attribute(0.5, minimum=0.0, maximum=1.0)
    kind: str = choice("b", ("a", "b"))


def test_attributes_encode_choices_as_positions_and_decode_back():
    numbers = Numbers(whole=-2, real=1, kind="b")
    assert numbers.encode() == {"whole": -2, "real": 1, "kind": 1}
    assert Numbers.decode({**numbers.encode(), "other": 5}) == numbers
    with pytest.raises(ValueError, match="code for attribute `kind`"):
        Numbers.decode({"whole": 0, "real": 0, "kind": 2})


def test_registry_refuses_what_breaks_the_contract():
    op = ops.gated_conv_2d
    assert ops.get_op("ke.gated_conv_2d") is op
    assert ops.register_op(op) is op
    with pytest.raises(ValueError, match="Expected an `Op`"):
        ops.register_op("ke.gated_conv_2d")
    with pytest.raises(ValueError, match="'<namespace>.<op>'"):
        ops.register_op(dataclasses.replace(op, name="gated"))
    with pytest.raises(ValueError, match="taken already"):
        ops.register_op(dataclasses.replace(op, version=2))
    with pytest.raises(ValueError, match="weights last"):
        ops.register_op(dataclasses.replace(op, name="test.order", arguments=op.arguments[::-1]))
    with pytest.raises(KeyError, match="Unknown op 'ke.absent'"):
        ops.get_op("ke.absent")


def test_plugin_that_fails_to_load_is_named(monkeypatch):
    class Entry:
        name, value = "broken", "broken:register"

        def load(self):
            raise ImportError("no module named broken")

    monkeypatch.setattr(registry.importlib.metadata, "entry_points", lambda group: [Entry()])
    with pytest.raises(RuntimeError, match=r"Plugin 'broken' \(broken:register\).*no module named broken"):
        registry.load_plugins.__wrapped__()


def test_generated_header_is_the_one_in_the_tree():
    header = pathlib.Path(__file__).parents[2] / "native" / "include" / "ke_attributes.h"
    assert header.read_text() == c_header.header(list(ops.BUILTIN)), "run `python -m keras_efficient.ops.c_header`"


def test_header_of_a_float_attribute():
    op = dataclasses.replace(ops.multi_bit_dense, name="test.two_3d", attributes=Numbers)
    text = c_header.header([op])
    assert "} TestTwo3DAttributes;" in text
    assert '{"real", KE_FLOAT, offsetof(TestTwo3DAttributes, real), 0.0, 1.0},' in text
    assert "enum { KE_KIND_A = 0, KE_KIND_B = 1 };" in text


def test_contexts_nest_and_end():
    assert not ops.is_skipping()
    with ops.skipping():
        assert ops.is_skipping()
        with ops.skipping(False):
            assert not ops.is_skipping()
    assert not ops.is_skipping()
    assert not ops.is_recording()
    ops.record("nobody listens", 1.0, keras.ops.ones((1,)))
    with ops.executed_when(keras.ops.convert_to_tensor([1.0, 1.0, 0.0])):
        with ops.executed_when(keras.ops.convert_to_tensor([0.0, 1.0, 1.0])), ops.recording() as events:
            ops.record("inner", 2.0, keras.ops.ones((3,)) * 2.0)
        with ops.recording() as outer_events:
            ops.record("outer", 2.0, keras.ops.ones((3,)) * 2.0)
    assert execution_mask() is None
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(events[0].executed), [0, 2, 0])
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(outer_events[0].executed), [2, 2, 0])


@pytest.mark.parametrize("taken", [True, False])
def test_branch_brings_costs_out(taken):
    arrays, attributes = ops.multi_bit_dense.example(np.random.default_rng(0))
    macs = arrays[0].shape[1] * len(arrays[-1])

    def expensive():
        ops.record("layer", 5.0, keras.ops.ones((1,)) * 5.0)
        return ops.multi_bit_dense(*arrays, **attributes)

    def cheap():
        return keras.ops.zeros((len(arrays[0]), len(arrays[-1])))

    with ops.recording() as events:
        y = ops.branch(keras.ops.convert_to_tensor(taken), expensive, cheap)
    executed = {event.by_op: float(keras.ops.sum(event.executed)) for event in events}
    assert executed == ({False: 5.0, True: float(macs)} if taken else {False: 0.0, True: 0.0})
    assert (np.abs(keras.ops.convert_to_numpy(y)).max() > 0) == taken


def test_argument_kinds_of_the_built_in_ops():
    assert [argument.kind for argument in ops.gated_conv_2d.arguments] == [
        "activation",
        "gate",
        "gate",
        "weight",
        "weight",
    ]
    assert ops.multi_bit_dense.weights[1] == Argument("bits", "weight", 1, dtype="uint8", packed=True)
