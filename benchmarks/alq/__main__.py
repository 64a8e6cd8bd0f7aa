"""ALQ beside equal bits everywhere: accuracy, bits and bytes of one network.

`python -m benchmarks.alq [--net lenet5|vgg_small] [--quick] [--data-dir DIR] [--work DIR] [--parts PART,...]`. Trains
the network in floats, then quantises it round by round; then the same network with uniform bits, and as Keras quantises
it. What is finished is on disk, and an interrupted run goes on.

Parts can run one by one, also at the same time and on several machines over copies of `--work`. `float` comes first;
`files` and `devices` alone need TensorFlow and a runtime, and what `alq` and `activations` leave behind.
"""

import argparse
import dataclasses
import json
import math
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

import keras

from benchmarks.alq import devices, files, networks, rounds, uniform
from benchmarks.cells import Cells
from benchmarks.parts import few
from benchmarks.training import save
from keras_efficient import datasets, quantization
from keras_efficient.demo.machine import machine

RESULTS = pathlib.Path(__file__).parent.parent / "results"
UNIFORM_BITS = (1, 2, 4)
KERAS_MODES = ("int8", "int4")
PARTS = (
    "float",
    "alq",
    *(f"uniform_{bits}" for bits in UNIFORM_BITS),
    *(f"keras_{mode}" for mode in KERAS_MODES),
    "activations",
    "files",
    "devices",
)


@dataclasses.dataclass(frozen=True)
class Setting:
    """One network of the comparison.

    Attributes:
        dataset: Name of its data set.
        width: Of the network, relative to the published one.
        training: In floats.
        uniform_epochs: Of the training with uniform bits, from the float weights.
        activation_epochs: Of the training with 2-bit activations, after ALQ.
        recipe: Of ALQ.
        taught: Whether ALQ and uniform bits learn from the float network instead of labels, see `lessons`.
        backups: Whether interrupted trainings go on from their last epoch; writing takes about as long as an epoch
            on a GPU.
    """

    dataset: str
    width: float
    training: networks.Training
    uniform_epochs: int
    activation_epochs: int
    recipe: rounds.Recipe
    taught: bool = False
    backups: bool = True

    def network(self) -> keras.Model:
        """The network, not trained yet."""
        return networks.lenet5() if self.dataset == "mnist" else networks.vgg_small(self.width)


SETTINGS = {
    "lenet5": Setting("mnist", 1.0, networks.Training(5), 3, 2, rounds.LENET5),
    "vgg_small": Setting(
        "cifar10", 1.0, networks.Training(30, 2e-3, 2, 0.05), 16, 4, rounds.VGG_SMALL, taught=True, backups=False
    ),
    "vgg_small_quarter": Setting("cifar10", 0.25, networks.Training(20), 8, 4, rounds.VGG_SMALL_QUARTER),
}


def main() -> None:
    """Prints a table and one line of JSON; without --quick writes results/alq_<net>.json and .png too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--net", choices=tuple(SETTINGS), default="lenet5")
    parser.add_argument("--quick", action="store_true", help="few images, one epoch of each; nothing is written")
    parser.add_argument("--data-dir", help="directory of mnist.npz and cifar10.npz")
    parser.add_argument("--work", type=pathlib.Path, help="where cells are kept (default: build/alq/<net>)")
    parser.add_argument(
        "--parts",
        default=",".join(PARTS),
        help=f"what to measure, of {', '.join(PARTS)}; the rest is taken from disk if there",
    )
    parser.add_argument("--width", type=float, help="of VGG-small, relative to the published one")
    parser.add_argument("--latent-epochs", type=int, help="straight-through epochs of the last step of ALQ")
    parser.add_argument("--float-epochs", type=int, help="epochs of the training in floats")
    parser.add_argument("--uniform-epochs", type=int, help="epochs of every training with uniform bits")
    parser.add_argument("--labels", action="store_true", help="ALQ and uniform bits learn from labels alone")
    options = parser.parse_args()
    parts = options.parts.split(",")
    if not set(parts) <= set(PARTS):
        parser.error(f"--parts: expected some of {', '.join(PARTS)}, received {options.parts}")
    setting = _changed(SETTINGS[options.net], options)
    dataset = datasets.load(setting.dataset, options.data_dir)
    if options.quick:
        with tempfile.TemporaryDirectory() as work:
            summary = measured(
                options.net, _short(setting), few(dataset, 640, 100, 100), pathlib.Path(work), parts, images=20
            )
    else:
        work = options.work or pathlib.Path("build/alq") / options.net
        if not claimed(work, setting):
            parser.error(f"--work: expected a directory without results of another setting, received {work}")
        summary = measured(options.net, setting, dataset, work, parts, images=2000)
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"alq_{options.net}.json").write_text(json.dumps(summary, indent=1) + "\n")
        if "alq" in summary and "files" in parts:
            network = keras.saving.load_model(work / "multi_bit.keras")
            quantization.picture(network, RESULTS / f"alq_{options.net}.png")
    print_table(summary)
    print(json.dumps(summary))


def claimed(work: pathlib.Path, setting: Setting) -> bool:
    """Whether a directory holds results of this setting alone; one without any does from now on."""
    note, text = work / "setting.json", json.dumps(dataclasses.asdict(setting), indent=1)
    if not note.exists():
        work.mkdir(parents=True, exist_ok=True)
        note.write_text(text)
    return note.read_text() == text


def measured(
    net: str, setting: Setting, dataset: datasets.Dataset, work: pathlib.Path, parts: list[str], images: int
) -> dict[str, Any]:
    """All figures of one network; those of a part that is not asked for only where they are on disk."""
    cells = Cells(work / "cells")
    keras.utils.set_random_seed(0)
    path = work / "float.keras"
    model = networks.trained(path, setting.network(), dataset, setting.training, with_backups=setting.backups)
    makers: dict[str, Callable[[], Any]] = {
        "float": lambda: {"bytes": 4.0 * _trained(model), **networks.accuracies(model, dataset)},
        "alq": lambda: alq_figures(model, dataset, setting, work),
    }
    for bits in UNIFORM_BITS:
        makers[f"uniform_{bits}"] = lambda bits=bits: uniform.uniform_figures(
            model, dataset, bits, setting.uniform_epochs, work, setting.taught, setting.backups
        )
    for mode in KERAS_MODES:
        makers[f"keras_{mode}"] = lambda mode=mode: uniform.keras_figures(path, dataset, mode)
    makers["activations"] = lambda: activation_figures(dataset, setting, work)
    makers["files"] = lambda: files.exported(keras.saving.load_model(work / "multi_bit.keras"), dataset, work, images)
    makers["devices"] = lambda: device_figures(model, dataset, work, images)
    found = {
        name: cells.get(name, make)
        for name, make in makers.items()
        if name in parts or (cells.directory / f"{name}.json").exists()
    }
    summary: dict[str, Any] = {
        "claim": "alq",
        "net": net,
        "machine": machine(),
        "setting": dataclasses.asdict(setting),
        **found,
    }
    if "alq" in found and "files" in found:
        summary["alq"] = {**found["alq"], "files": summary.pop("files")}
    if "activations" in found and "devices" in found:
        summary["devices"] = {"activations": summary.pop("activations"), "files": found["devices"]}
    return summary


def alq_figures(model: keras.Model, dataset: datasets.Dataset, setting: Setting, work: pathlib.Path) -> dict[str, Any]:
    """Bits, bytes and accuracy of the network after ALQ."""
    start = time.monotonic()
    network = rounds.compressed(work, model, dataset, setting.recipe, taught=setting.taught)
    found = quantization.summary(network)
    plain = quantization.finished(network)
    save(plain, work / "multi_bit.keras")
    return {
        "bits": found.average_bits,
        "bytes": found.accounted_bytes,
        "index_bytes": found.index_bytes,
        "bits_per_weight": found.bits_per_weight,
        "scales_per_group": found.scale_bits,
        "layers": [dataclasses.asdict(row) for row in found.layers],
        "macs_by_precision": found.macs_by_precision,
        **networks.accuracies(plain, dataset),
        "trained": {
            "setting": dataclasses.asdict(setting),
            "machine": machine(),
            "devices": networks.device_names(),
            "seconds": time.monotonic() - start,
        },
    }


def activation_figures(dataset: datasets.Dataset, setting: Setting, work: pathlib.Path) -> dict[str, float]:
    """Accuracy of the network after ALQ with 2-bit activations."""
    network = keras.saving.load_model(work / "multi_bit.keras")
    network = devices.with_activations(network, dataset, setting.activation_epochs)
    save(quantization.finished(network), work / "activations.keras")
    return networks.accuracies(network, dataset)


def device_figures(model: keras.Model, dataset: datasets.Dataset, work: pathlib.Path, images: int) -> dict[str, Any]:
    """The network in floats, int8, few bits, and few bits with 2-bit activations."""
    network, activations = (keras.saving.load_model(work / name) for name in ("multi_bit.keras", "activations.keras"))
    return devices.end_to_end(model, network, activations, dataset, work, images)


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


def _changed(setting: Setting, options: argparse.Namespace) -> Setting:
    """The setting with what the command line asks for."""
    if options.width is not None:
        setting = _narrower(setting, options.width)
    steps = setting.recipe.steps
    if options.latent_epochs is not None:
        decay = steps[-1].latent_decay ** (steps[-1].latent_epochs / max(1, options.latent_epochs))  # to the same rate
        last = dataclasses.replace(steps[-1], latent_epochs=options.latent_epochs, latent_decay=decay)
        steps = (*steps[:-1], last)
    training, uniform_epochs = setting.training, setting.uniform_epochs
    if options.float_epochs is not None:
        training = dataclasses.replace(training, epochs=options.float_epochs)
    if options.uniform_epochs is not None:
        uniform_epochs = options.uniform_epochs
    return dataclasses.replace(
        setting,
        training=training,
        uniform_epochs=uniform_epochs,
        recipe=dataclasses.replace(setting.recipe, steps=steps),
        taught=setting.taught and not options.labels,
    )


def _narrower(setting: Setting, width: float) -> Setting:
    """The setting at another width of VGG-small: groups of dense layers as narrow, of convolutions wide enough."""
    groups = {
        name: size if isinstance(size, str) else int(size * width / setting.width)
        for name, size in setting.recipe.groups.items()
    }
    for layer in networks.vgg_small(width).layers:
        if isinstance(layer, keras.layers.Conv2D) and layer.kernel.shape[2] < rounds.LEAST_GROUP:
            groups[layer.name] = "channelwise"
    return dataclasses.replace(setting, width=width, recipe=dataclasses.replace(setting.recipe, groups=groups))


def _short(setting: Setting) -> Setting:
    if setting.dataset == "cifar10":
        setting = _narrower(setting, 0.125)
    last = dataclasses.replace(setting.recipe.steps[-1], latent_epochs=1, final_epochs=0)
    recipe = dataclasses.replace(setting.recipe, steps=(last,))
    return dataclasses.replace(
        setting,
        training=dataclasses.replace(setting.training, epochs=1, warmup_epochs=0),
        uniform_epochs=1,
        activation_epochs=1,
        recipe=recipe,
    )


if __name__ == "__main__":
    main()
