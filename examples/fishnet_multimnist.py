"""Two tasks on one scene: which digit is on the left, which on the right; who shares which filters, layer by layer.

`python examples/fishnet_multimnist.py [--data-dir DIR] [--epochs 10] [--share-rate 0.8] [--out fishnet]`. Without a
directory it uses the digits of the package. Writes `<out>.png`, `<out>.tflite` and `<out>_left.tflite`.
"""

import argparse
import pathlib

import keras
import numpy as np

from keras_efficient import cost, datasets, tflite_export
from keras_efficient.callbacks import FilterSharingSchedule
from keras_efficient.models import MultiTask, thin_resnet


def main() -> None:
    """Trains, exports and draws."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", help="directory of mnist.npz")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--share-rate", type=float, default=0.8)
    parser.add_argument("--scenes", type=int, default=4000)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("fishnet"))
    options = parser.parse_args()

    digits = datasets.load("mnist", options.data_dir) if options.data_dir else datasets.load("digits")
    data = datasets.two_digit_scenes(digits, counts=(options.scenes, 500, 1000), shift=8)
    network = thin_resnet(8, width=8, input_shape=data.input_shape)
    backbone = keras.Model(network.input, network.get_layer("pool").output)

    keras.utils.set_random_seed(0)
    model = MultiTask(backbone, data.num_classes)
    batches = datasets.TaskBatches(data.x_train, data.y_train, batch_size=64)
    rate = keras.optimizers.schedules.CosineDecay(1e-2, options.epochs * len(batches))
    model.compile(
        keras.optimizers.Adam(rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    model.fit(batches, epochs=options.epochs, verbose=2, callbacks=[FilterSharingSchedule(options.share_rate)])
    found = model.evaluate(data.x_test, data.y_test, verbose=0, return_dict=True)
    single = sum(cost.profile(model.export(task=task)).parameters for task in model.tasks)
    print({name: round(value, 4) for name, value in found.items()})
    print(f"share rate {model.share_rate():.2f}; {model.stored_parameters():,} parameters, two networks {single:,}")

    print(tflite_export.export(model, options.out.with_suffix(".tflite")))
    print(tflite_export.export(model, options.out.with_name(options.out.name + "_left.tflite"), task="left"))
    runner = tflite_export.load(options.out.with_suffix(".tflite"), task="left", delegate="none")
    agree = (runner(data.x_test[:64]).output.argmax(axis=1) == data.y_test["left"][:64]).mean()
    print(f"the file's left task is right on {agree:.0%} of 64 scenes")
    draw(model, options.out.with_suffix(".png"))


def draw(model: MultiTask, path: pathlib.Path) -> None:
    """A row per layer: slots that tasks share in one colour, private ones in another."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    layers = model.sharing_layers
    shared = [np.sort([len(set(column)) == 1 for column in layer.sources().T])[::-1] for layer in layers]
    figure, axes = plt.subplots(figsize=(8, 0.45 * len(layers) + 1.2))
    for row, (layer, slots) in enumerate(zip(layers, shared, strict=True)):
        share = slots.mean()
        axes.barh(row, share, color="#4477aa", label="shared" if row == 0 else None)
        axes.barh(row, 1 - share, left=share, color="#ee6677", label="private" if row == 0 else None)
        axes.text(1.01, row, f"{slots.sum()} of {layer.slots}", va="center", fontsize=8)
    axes.set_yticks(range(len(layers)), [layer.name for layer in layers], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of the filters")
    axes.set_title(f"Which filters {' and '.join(model.tasks)} share", fontsize=10)
    figure.legend(loc="lower right", ncols=2, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
