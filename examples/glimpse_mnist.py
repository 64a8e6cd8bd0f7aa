"""Recurrent attention, step by step: train on MNIST, stop early, export, and draw where the network looks.

`python examples/glimpse_mnist.py [--data-dir DIR] [--epochs N] [--out FOLDER] [--model FILE.keras]`. What each step
does and what to expect of it is in docs/recurrent_attention.md.
"""

import argparse
import pathlib

import keras
import numpy as np

from keras_efficient import cost, datasets, policies, tflite_export
from keras_efficient.layers import GlimpseCell
from keras_efficient.layers.glimpse_sensor import pixels
from keras_efficient.models import RecurrentAttention

BATCH = 256
IMAGES_SHOWN = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", help="directory of mnist.npz")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--images", type=int, help="train on so many images only")
    parser.add_argument("--model", type=pathlib.Path, help="a network trained before, instead of training one")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("glimpse_mnist"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    data = datasets.load("mnist", options.data_dir)

    model = keras.saving.load_model(options.model) if options.model else trained(data, options.epochs, options.images)
    print(f"{cost.profile(model).macs:,.0f} multiply-adds for {model.num_glimpses} glimpses, whatever the image's size")
    logits, locations = model.predict_path(data.x_test, batch_size=500, verbose=0)
    for k in range(model.num_glimpses):
        print(f"test error after {k + 1} glimpses: {100 * np.mean(logits[:, k].argmax(-1) != data.y_test):.2f} %")

    held_out = policies.ExitData(**model.exit_data(data.x_validation, data.y_validation, batch_size=500))
    model.policy = policies.ThresholdPolicy.tune(held_out, budget=0.6)
    stopped, taken = model.predict_exits(data.x_test, batch_size=500, verbose=0)
    wrong = 100 * np.mean(stopped.argmax(-1) != data.y_test)
    print(f"stopping where the answer is clear: {taken.mean() + 1:.2f} glimpses, test error {wrong:.2f} %")

    file = options.out / "glimpse_mnist.tflite"
    report = tflite_export.export(model, file, representative_data=data.x_validation[:500])
    result = tflite_export.load(file)(data.x_test[:100])
    print(f"{file}: {report.bytes:,} bytes, stops as Keras does on {np.mean(result.exit_index == taken[:100]):.0%}")
    draw(model, data, logits, locations, taken, options.out / "glimpses.png")


def trained(data: datasets.Dataset, epochs: int, images: int | None) -> RecurrentAttention:
    """Six glimpses of 8 x 8 pixels."""
    keras.utils.set_random_seed(0)
    model = RecurrentAttention(10, GlimpseCell(8, seed=0), num_glimpses=6)
    batches = datasets.Augmented(data.x_train[:images], data.y_train[:images], BATCH, shift=1, flip=False)
    rate = keras.optimizers.schedules.CosineDecay(3e-3, epochs * len(batches))
    model.compile(
        keras.optimizers.Adam(rate, global_clipnorm=5.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        loss_weights=[1 / 6] * 6,
        metrics=["accuracy"],
        policy_weight=0.05,
        normalize_advantages=True,
        reward="every",
    )
    model.fit(batches, epochs=epochs, validation_data=(data.x_validation, data.y_validation), verbose=2)
    return model


def draw(
    model: RecurrentAttention,
    data: datasets.Dataset,
    logits: np.ndarray,
    locations: np.ndarray,
    taken: np.ndarray,
    path: pathlib.Path,
) -> None:
    """One digit of each class or so: above the path of the glimpses, below what they have seen together."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    chosen = [int(np.flatnonzero(data.y_test == digit)[0]) for digit in range(IMAGES_SHOWN)]
    figure, axes = plt.subplots(2, IMAGES_SHOWN, figsize=(1.7 * IMAGES_SHOWN, 4.2))
    colours = plt.get_cmap("plasma")(np.linspace(0.2, 0.95, model.num_glimpses))
    side = model.cell.size
    for column, index in enumerate(chosen):
        image = data.x_test[index, ..., 0]
        height, width = image.shape
        centres = pixels(locations[index], image.shape)
        corners = np.floor(centres + 0.5 - side / 2 + 0.5).clip(0, [height - side, width - side])
        seen = np.zeros_like(image, bool)
        above, below = axes[:, column]
        above.imshow(image, cmap="gray")
        above.plot(corners[:, 1] + side / 2 - 0.5, corners[:, 0] + side / 2 - 0.5, color="white", linewidth=0.8)
        for k, (top, left) in enumerate(corners.astype(int)):
            seen[top : top + side, left : left + side] = True
            box = plt.Rectangle((left - 0.5, top - 0.5), side, side, fill=False, edgecolor=colours[k], linewidth=1.6)
            above.add_patch(box)
            above.text(left, top + 2, str(k + 1), color=colours[k], fontsize=7, fontweight="bold")
        below.imshow(np.where(seen, image, 0.25), cmap="gray", vmin=0, vmax=1)
        answers = logits[index].argmax(-1)
        above.set_title(f"after each: {' '.join(map(str, answers))}", fontsize=7)
        below.set_title(f"stops after {taken[index] + 1}", fontsize=7)
        for axis in (above, below):
            axis.set_axis_off()
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    print(f"{path}: the path of the glimpses")


if __name__ == "__main__":
    main()
