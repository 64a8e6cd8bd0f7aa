"""Runs models through the delegate with a runtime and numpy alone, on an emulated machine and on this one.

    python run_model.py LIBRARY FOLDER

For every `NAME.tflite` of the folder with a `NAME.inputs.npz` beside it (arrays named by the model's inputs, the first
axis counts the calls) writes `NAME.outputs.npz`: arrays named by the model's outputs, in `claimed` how many ops the
delegate took, and in `executed_macs` the multiply-adds that they executed.
"""

import ctypes
import pathlib
import sys

import numpy as np

try:
    from tflite_runtime import interpreter as tflite
except ImportError:
    from ai_edge_litert import interpreter as tflite


class Stats(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("size_bytes", "executed_macs", "kernel_calls", "claimed_ops")]


def by_signature(interpreter, inputs):
    (key,) = interpreter.get_signature_list()
    return interpreter.get_signature_runner(key)(**inputs)


def by_tensors(interpreter, inputs):
    details = {detail["name"]: detail for detail in interpreter.get_input_details()}
    for name, value in inputs.items():
        if tuple(details[name]["shape"]) != value.shape:
            interpreter.resize_tensor_input(details[name]["index"], value.shape)
    interpreter.allocate_tensors()
    for name, value in inputs.items():
        interpreter.set_tensor(details[name]["index"], value)
    interpreter.invoke()
    return {detail["name"]: interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()}


def run(library, model, inputs):
    stats = Stats(size_bytes=ctypes.sizeof(Stats))
    delegate = tflite.load_delegate(library, {"stats": str(ctypes.addressof(stats))})
    interpreter = tflite.Interpreter(model_path=str(model), experimental_delegates=[delegate])
    run_once = by_signature if interpreter.get_signature_list() else by_tensors
    calls = [
        run_once(interpreter, {name: values[call] for name, values in inputs.items()})
        for call in range(len(next(iter(inputs.values()))))
    ]
    results = {name: np.stack([call[name] for call in calls]) for name in calls[0]}
    return {**results, "claimed": np.array(stats.claimed_ops), "executed_macs": np.array(stats.executed_macs)}


def main():
    library, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    for model in sorted(folder.glob("*.tflite")):
        inputs = dict(np.load(model.with_suffix(".inputs.npz")))
        np.savez(model.with_suffix(".outputs.npz"), **run(library, model, inputs))


if __name__ == "__main__":
    main()
