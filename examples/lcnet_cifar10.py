"""LC-Net, step by step: a dense network, gates that learn a budget, a file, and a picture of what is cheap and dear.

`python examples/lcnet_cifar10.py [--data-dir DIR] [--epochs N] [--budget SHARE] [--out FOLDER]`. What each step does
and what to expect of it is in docs/lc_net.md. A budget of 0.5 asks for half of the dense network's multiply-adds.
"""

import argparse
import pathlib

import keras
import numpy as np

from keras_efficient import callbacks, cost, datasets, models, tflite_export

BATCH = 128
SHOWN = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", help="directory of cifar10.npz")
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=20, help="of the dense network; the gates take half as many")
    parser.add_argument("--images", type=int, help="train on so many images only")
    parser.add_argument("--budget", type=float, default=0.5)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("lcnet"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    data = datasets.load("cifar10", options.data_dir)
    batches = datasets.Augmented(data.x_train[: options.images], data.y_train[: options.images], BATCH)
    test = (data.x_test, data.y_test)

    keras.utils.set_random_seed(0)
    dense = models.LCResNet(options.depth, layer_gates=False, channel_gates=False)
    fit(dense, batches, options.epochs, 0.2)
    print(f"dense: {accuracy(dense, *test):.1%} at {cost.profile(dense).macs:,.0f} multiply-adds")

    network = models.LCResNet(options.depth)
    models.copy_weights(dense, network)
    half = max(1, options.epochs // 2)
    fit(network, batches, half, 0.05, [callbacks.ComputeBudget(options.budget)])
    fit(network, batches, max(1, half // 3), 0.01, [callbacks.ComputeBudget(options.budget, warmup_epochs=0)])
    models.harden(network, (batches[k][0] for k in range(min(80, len(batches)))))
    models.remove_idle_branches(network, data.x_train[:10_000])
    spent = cost.profile(network, data.x_test[:1000], batch_size=250)
    print(f"LC-Net: {accuracy(network, *test):.1%} at {spent.expected_macs:,.0f} multiply-adds on average")
    for layer in models.gate_statistics(network, data.x_test[:1000]):
        print(f"  {layer.name}: {layer.open_rate:.0%} open, +- {layer.deviation:.0%} over images")

    file = options.out / "lcnet.tflite"
    report = tflite_export.export(network, file, representative_data=data.x_validation[:200])
    result = tflite_export.load(file)(data.x_test[:1000])
    right = np.mean(result.output.argmax(axis=1) == data.y_test[:1000])
    print(f"{file}: {report.bytes:,} bytes, {right:.1%} on 1,000 test images")
    draw(result.executed_macs / cost.profile(dense).macs, data, options.out / "cheap_and_dear.png")


def fit(
    model: keras.Model,
    batches: keras.utils.PyDataset,
    epochs: int,
    rate: float,
    more: list[keras.callbacks.Callback] | None = None,
) -> None:
    """Stochastic gradient descent along a cosine."""
    schedule = keras.optimizers.schedules.CosineDecay(rate, epochs * len(batches))
    optimizer = keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True, weight_decay=5e-3, global_clipnorm=2.0)
    optimizer.exclude_from_weight_decay(var_names=["gate_kernel", "gate_bias"])  # it would make gates constant
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(batches, epochs=epochs, verbose=2, callbacks=more or [])


def accuracy(model: keras.Model, x: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean(model.predict(x, batch_size=250, verbose=0).argmax(axis=1) == y))


def draw(shares: np.ndarray, data: datasets.Dataset, path: pathlib.Path) -> None:
    """The images that spend least and most, and how often which share is spent."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.2 * SHOWN, 4.5), layout="constrained")
    grid = figure.add_gridspec(3, SHOWN)
    order = np.argsort(shares)
    for row, (title, chosen) in enumerate({"cheap": order[:SHOWN], "dear": order[::-1][:SHOWN]}.items()):
        for column, index in enumerate(chosen):
            axes = figure.add_subplot(grid[row, column])
            image = data.x_test[index]
            axes.imshow((image - image.min()) / max(float(np.ptp(image)), 1e-6))
            axes.set(xticks=[], yticks=[], title=f"{shares[index]:.0%}", ylabel=title if column == 0 else "")
    axes = figure.add_subplot(grid[2, :])
    axes.hist(shares, bins=50)
    axes.set_xlabel("share of the dense network's multiply-adds that an image spends")
    figure.savefig(path, dpi=120)
    print(f"{path}: which images are cheap and which dear")


if __name__ == "__main__":
    main()
