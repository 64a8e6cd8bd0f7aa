"""Runs a folder that `export(target="coral")` wrote, on a Coral board or any computer.

    python3 run_on_board.py FOLDER INPUT [--trade-off PRICE] [--max-exit EXIT] [--cpu] [--json]

Needs tflite-runtime and numpy, nothing else. Takes the Edge TPU where `libedgetpu.so.1` finds one, and the files
`stage_*_edgetpu.tflite` that `edgetpu_compiler` makes of the stages; else the CPU runs the stages as they are.

INPUT is a `.npy` file, one input or several: float numbers are taken as the network was trained on them, uint8 ones are
normalised as `model.json` says. Any other file is read as uint8 numbers, input after input.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import pathlib
import sys
import time

import numpy as np
from tflite_runtime.interpreter import Interpreter, load_delegate

LIBRARY = "libedgetpu.so.1"


class Network:
    """The stages and the policy of a folder.

    Args:
        folder: What the export wrote, with or without compiled stages.
        use_edge_tpu: Whether to look for an Edge TPU.
    """

    def __init__(self, folder: pathlib.Path, use_edge_tpu: bool = True):
        self.entries = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        self.stages = self.entries["stages"]
        self.on_edge_tpu = use_edge_tpu and edge_tpu_is_there()
        self.runners = [self._stage(folder, stage) for stage in self.stages]
        self.policies = []
        if "policy" in self.entries:
            self.policy = Interpreter(model_content=read(folder, self.entries["policy"]))
            self.policies = [self.policy.get_signature_runner(f"policy_{k}") for k in range(len(self.stages) - 1)]

    def _stage(self, folder: pathlib.Path, stage: dict) -> object:
        compiled = folder / stage["file"].replace(".tflite", "_edgetpu.tflite")
        if self.on_edge_tpu and compiled.is_file():
            made = Interpreter(str(compiled), experimental_delegates=[load_delegate(LIBRARY)])
        else:
            if self.on_edge_tpu:
                warn(f"{compiled.name} is not there: {stage['file']} runs on the CPU. Make it with edgetpu_compiler.")
            made = Interpreter(model_content=read(folder, stage))
        return made.get_signature_runner()

    def run(self, x: np.ndarray, trade_off: float | None = None, max_exit: int | None = None) -> tuple[np.ndarray, int]:
        """Logits and exit of one input `[1, ...]`, float."""
        (name,) = self.stages[0]["inputs"]
        carry = {name: quantized(x, self.stages[0]["inputs"][name])}
        last = len(self.stages) - 1 if max_exit is None else min(max_exit, len(self.stages) - 1)
        for k, runner in enumerate(self.runners):
            outputs = runner(**carry)
            given = self.stages[k]["outputs"]
            scaled = {name: dequantized(value, given[name]) for name, value in outputs.items()}
            if k == last or self._leaves(k, scaled, trade_off):
                break
            carry = {
                name: outputs[name] if same_scale(given[name], to) else quantized(scaled[name], to)
                for name, to in self.stages[k + 1]["inputs"].items()
            }
        return (scaled["output"] if "output" in scaled else next(iter(scaled.values()))), k

    def _leaves(self, k: int, scaled: dict, trade_off: float | None) -> bool:
        policy = self.policies[k]
        offered = dict(scaled)
        if "trade_off" in self.entries:
            price = self.entries["trade_off"]["default"] if trade_off is None else trade_off
            offered["trade_off"] = np.array([price], "float32")
        return float(policy(**{name: offered[name] for name in policy.get_input_details()})["score"][0]) > 0


def quantized(values: np.ndarray, tensor: dict) -> np.ndarray:
    """Float values in the integers of a tensor."""
    if "scale" not in tensor:
        return values.astype(tensor["dtype"])
    limits = np.iinfo(tensor["dtype"])
    steps = np.rint(values / np.float32(tensor["scale"])) + tensor["zero_point"]
    return np.clip(steps, limits.min, limits.max).astype(tensor["dtype"])


def dequantized(values: np.ndarray, tensor: dict) -> np.ndarray:
    """The float values that a tensor's integers stand for."""
    if "scale" not in tensor:
        return values
    return ((values.astype("int32") - tensor["zero_point"]) * np.float32(tensor["scale"])).astype("float32")


def same_scale(a: dict, b: dict) -> bool:
    """Whether the bytes of one tensor can be handed on as the other."""
    return all(a.get(key) == b.get(key) for key in ("dtype", "scale", "zero_point"))


def read(folder: pathlib.Path, entry: dict) -> bytes:
    """A file of the folder, its hash checked."""
    content = (folder / entry["file"]).read_bytes()
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise ValueError(f"{entry['file']} is not the file that model.json describes: its SHA-256 differs.")
    return content


def edge_tpu_is_there() -> bool:
    """Whether the library can be loaded and finds a device; one line of warning where not."""
    try:
        ctypes.CDLL(LIBRARY)  # first, since tflite-runtime's delegate prints an error of its own where this one fails
        load_delegate(LIBRARY)
    except (ValueError, OSError) as error:
        warn(f"No Edge TPU ({' '.join(str(error).split()) or LIBRARY}): the CPU runs everything.")
        return False
    return True


def inputs_of(path: pathlib.Path, entries: dict) -> np.ndarray:
    """The inputs `[N, ...]` of a file, as the network takes them."""
    described = entries["stages"][0]["inputs"]
    if len(described) != 1:
        raise ValueError(f"This script runs networks with one input. The one in the folder has {sorted(described)}.")
    shape = next(iter(described.values()))["shape"][1:]
    x = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.fromfile(path, "uint8")
    if x.size == 0 or x.size % int(np.prod(shape)) or (x.ndim > 1 and list(x.shape[-len(shape) :]) != shape):
        raise ValueError(f"{path} does not hold inputs of shape {shape}. It holds an array of shape {list(x.shape)}.")
    x = x.reshape(-1, *shape)
    if x.dtype == np.uint8:
        done = entries.get("normalization", {"mean": 0.0, "std": 1.0})
        x = (x - np.asarray(done.get("mean", 0.0))) / np.asarray(done.get("std", 1.0))
    return x.astype("float32")


def warn(sentence: str) -> None:
    """One line on stderr."""
    print(sentence, file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs a network with exits, stage by stage.")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("input", type=pathlib.Path)
    parser.add_argument("--trade-off", type=float, help="accuracy to give up for the cost of one full network")
    parser.add_argument("--max-exit", type=int, help="last exit allowed, 1 for the first")
    parser.add_argument("--cpu", action="store_true", help="do not look for an Edge TPU")
    parser.add_argument("--json", action="store_true", help="one JSON object per input")
    options = parser.parse_args()
    try:
        if options.max_exit is not None and options.max_exit < 1:
            raise ValueError(f"--max-exit needs a number from 1 on. Received: {options.max_exit}")
        network = Network(options.folder, use_edge_tpu=not options.cpu)
        x = inputs_of(options.input, network.entries)
    except (OSError, ValueError, KeyError) as error:
        warn(f"run_on_board.py: error: {error}")
        return 2
    cap = None if options.max_exit is None else options.max_exit - 1
    network.run(x[:1], options.trade_off, cap)  # the first run is slower: it loads weights
    labels = network.entries.get("labels", [])
    for number in range(len(x)):
        start = time.perf_counter()
        logits, taken = network.run(x[number : number + 1], options.trade_off, cap)
        milliseconds = 1000 * (time.perf_counter() - start)
        best = int(logits.argmax())
        label = labels[best] if best < len(labels) else str(best)
        if options.json:
            print(json.dumps({"index": best, "label": label, "exit": taken + 1, "ms": round(milliseconds, 3)}))
        else:
            print(f"{number:5d}  {label:20s}  exit {taken + 1}  {milliseconds:8.2f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
