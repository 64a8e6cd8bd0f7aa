"""ALQ beside equal bits everywhere: accuracy, bits and bytes of one network.

`python -m benchmarks.alq [--net lenet5|vgg_small] [--quick] [--data-dir DIR] [--work DIR] [--parts PART,...]`. Trains
the network in floats, then quantises it round by round; then the same network with uniform bits, and as Keras quantises
it. What is finished is on disk, and an interrupted run goes on.
"""

import argparse
import dataclasses
import json
import math
import pathlib
import tempfile
from typing import Any

import keras

from benchmarks.alq import devices, files, networks, rounds, uniform
from benchmarks.cells import Cells
from benchmarks.parts import few
from keras_efficient import datasets, quantization
from keras_efficient.demo.machine import machine

RESULTS = pathlib.Path(__file__).parent.parent / "results"
PARTS = ("alq", "uniform", "keras", "devices")
UNIFORM_BITS = (1, 2, 4)


@dataclasses.dataclass(frozen=True)
class Setting:
    """One network of the comparison.

    Attributes:
        dataset: Name of its data set.
        width: Of the network, relative to the published one.
        float_epochs: Of the training in floats.
        uniform_epochs: Of the training with uniform bits, from the float weights.
        activation_epochs: Of the training with 2-bit activations, after ALQ.
        recipe: Of ALQ.
    """

    dataset: str
    width: float
    float_epochs: int
    uniform_epochs: int
    activation_epochs: int
    recipe: rounds.Recipe

    def network(self) -> keras.Model:
        """The network, not trained yet."""
        return networks.lenet5() if self.dataset == "mnist" else networks.vgg_small(self.width)


SETTINGS = {
    "lenet5": Setting("mnist", 1.0, 5, 3, 2, rounds.LENET5),
    "vgg_small": Setting("cifar10", 0.25, 20, 8, 4, rounds.VGG_SMALL),
}


def main() -> None:
    """Prints a table and one line of JSON; without --quick writes results/alq_<net>.json and .png too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--net", choices=tuple(SETTINGS), default="lenet5")
    parser.add_argument("--quick", action="store_true", help="few images, one epoch of each; nothing is written")
    parser.add_argument("--data-dir", help="directory of mnist.npz and cifar10.npz")
    parser.add_argument("--work", type=pathlib.Path, help="where cells are kept (default: build/alq/<net>)")
    parser.add_argument(
        "--parts", default=",".join(PARTS), help="what to measure; the rest is taken from disk if there"
    )
    options = parser.parse_args()
    parts = options.parts.split(",")
    setting = SETTINGS[options.net]
    dataset = datasets.load(setting.dataset, options.data_dir)
    if options.quick:
        with tempfile.TemporaryDirectory() as work:
            summary = measured(
                options.net, _short(setting), few(dataset, 640, 100, 100), pathlib.Path(work), parts, images=20
            )
    else:
        work = options.work or pathlib.Path("build/alq") / options.net
        summary = measured(options.net, setting, dataset, work, parts, images=2000)
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"alq_{options.net}.json").write_text(json.dumps(summary, indent=1) + "\n")
        if "alq" in summary:
            network = keras.saving.load_model(work / "multi_bit.keras")
            quantization.picture(network, RESULTS / f"alq_{options.net}.png")
    print_table(summary)
    print(json.dumps(summary))


def measured(
    net: str, setting: Setting, dataset: datasets.Dataset, work: pathlib.Path, parts: list[str], images: int
) -> dict[str, Any]:
    """All figures of one network; those of a part that is not asked for only where they are on disk."""
    cells = Cells(work / "cells")
    keras.utils.set_random_seed(0)
    path = work / "float.keras"
    model = networks.trained(path, setting.network(), dataset, setting.float_epochs, peak_rate=2e-3)
    summary: dict[str, Any] = {
        "claim": "alq",
        "net": net,
        "machine": machine(),
        "setting": dataclasses.asdict(setting),
        "float": cells.get("float", lambda: {"bytes": 4.0 * _trained(model), **networks.accuracies(model, dataset)}),
    }
    makers = {"alq": lambda: alq_figures(model, dataset, setting, work, images)}
    for bits in UNIFORM_BITS:
        makers[f"uniform_{bits}"] = lambda bits=bits: uniform.uniform_figures(
            model, dataset, bits, setting.uniform_epochs, work
        )
    for mode in ("int8", "int4"):
        makers[f"keras_{mode}"] = lambda mode=mode: uniform.keras_figures(path, dataset, mode)
    makers["devices"] = lambda: device_figures(model, dataset, setting, work, images)
    for name, make in makers.items():
        if name.split("_")[0] in parts or (cells.directory / f"{name}.json").exists():
            summary[name] = cells.get(name, make)
    return summary


def alq_figures(
    model: keras.Model, dataset: datasets.Dataset, setting: Setting, work: pathlib.Path, images: int
) -> dict[str, Any]:
    """Bits, bytes and accuracy of the network after ALQ, in Keras and as a file."""
    network = rounds.compressed(work, model, dataset, setting.recipe)
    found = quantization.summary(network)
    plain = quantization.finished(network)
    plain.save(work / "multi_bit.keras")
    return {
        "bits": found.average_bits,
        "bytes": found.accounted_bytes,
        "index_bytes": found.index_bytes,
        "bits_per_weight": found.bits_per_weight,
        "scales_per_group": found.scale_bits,
        "layers": [dataclasses.asdict(row) for row in found.layers],
        "macs_by_precision": found.macs_by_precision,
        **networks.accuracies(network, dataset),
        "files": files.exported(plain, dataset, work, images),
    }


def device_figures(
    model: keras.Model, dataset: datasets.Dataset, setting: Setting, work: pathlib.Path, images: int
) -> dict[str, Any]:
    """The network in floats, int8, few bits, and few bits with 2-bit activations."""
    network = rounds.compressed(work, model, dataset, setting.recipe)
    path = work / "activations.keras"
    if not path.exists():
        quantization.finished(devices.with_activations(network, dataset, setting.activation_epochs)).save(path)
    activations = keras.saving.load_model(path)
    found = devices.end_to_end(model, quantization.finished(network), activations, dataset, work, images)
    return {"activations": networks.accuracies(activations, dataset), "files": found}


def print_table(summary: dict[str, Any]) -> None:
    """One row per way of quantising."""
    print(f"{'':<14}{'bits':>7}{'bytes':>12}{'validation':>12}{'test':>8}")
    for name in ("float", "alq", *(f"uniform_{b}" for b in UNIFORM_BITS), "keras_int8", "keras_int4"):
        row = summary.get(name)
        if row is not None:
            bits = f"{row['bits']:.3f}" if "bits" in row else "-"
            print(f"{name:<14}{bits:>7}{row['bytes']:>12,.0f}{row['validation']:>12.2%}{row['test']:>8.2%}")
    for form, row in summary.get("alq", {}).get("files", {}).items():
        print(f"file, {form}: {row}")
    for name, row in summary.get("devices", {}).get("files", {}).items():
        print(f"{name:<26}{row['bytes']:>10,} bytes {row['accuracy']:>8.2%} {row['mean_us']:>8.1f} us")


def _trained(model: keras.Model) -> float:
    return float(sum(math.prod(variable.shape) for variable in model.trainable_variables))


def _short(setting: Setting) -> Setting:
    last = dataclasses.replace(setting.recipe.steps[-1], latent_epochs=1, final_epochs=0)
    recipe = dataclasses.replace(setting.recipe, steps=(last,))
    return dataclasses.replace(
        setting, width=min(setting.width, 0.125), float_epochs=1, uniform_epochs=1, recipe=recipe
    )


if __name__ == "__main__":
    main()
