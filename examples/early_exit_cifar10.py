"""From a plain Keras network to one that stops early on your phone: CIFAR-10, step by step.

    python examples/early_exit_cifar10.py --data-dir DIR [--epochs 12] [--out early_exit]

`DIR` holds `cifar10.npz`; without it Keras downloads the data once. Twelve epochs take half an hour on two cores.
"""

import argparse
import pathlib

import keras
import numpy as np

from keras_efficient import datasets, policies, tflite_export
from keras_efficient.models import MultiExit, thin_resnet

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data-dir")
parser.add_argument("--epochs", type=int, default=12)
parser.add_argument("--depth", type=int, default=20, help="6 n + 2")
parser.add_argument("--images", type=int, help="train on so many images only, to try the script out")
parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("early_exit"))
options = parser.parse_args()
options.out.mkdir(parents=True, exist_ok=True)

# 1. Data. The validation images train nothing but the policy.
data = datasets.load("cifar10", options.data_dir)
x_train, y_train = data.x_train[: options.images], data.y_train[: options.images]

# 2. Any Keras network that ends in logits, and the names of the layers behind which it may stop. This one has all its
# channels behind the third block, so that early exits have something to go by.
count = (options.depth - 2) // 2
backbone = thin_resnet(options.depth, blocks=(1, 1, count - 2))
model = MultiExit.from_model(backbone, [f"block_{k}" for k in range(1, count)])

# 3. One `compile`, one `fit`: every exit has the loss, the early ones with less weight.
steps = options.epochs * max(1, len(x_train) // 128)
rate = keras.optimizers.schedules.CosineDecay(
    0.0075, steps - steps // 5, warmup_target=0.15, warmup_steps=max(1, steps // 5)
)
model.compile(
    keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=5e-3, global_clipnorm=5.0),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
    loss_weights=[k / model.num_exits for k in range(1, model.num_exits + 1)],
)
model.fit(datasets.Augmented(x_train, y_train, 128), epochs=options.epochs, verbose=2)

# 4. When to stop: learned on images that the network has not seen. `exit_data` refuses those that it has.
held_out = policies.ExitData(**model.exit_data(data.x_validation, data.y_validation, trained_on=x_train))
test = policies.ExitData(**model.exit_data(data.x_test, data.y_test))
last = float(test.correct[:, -1].mean())
print(f"whole network: {last:.2%} of the test images right")
for trade_off in (0.05, 0.1, 0.2, 0.4):
    tuned = policies.ThresholdPolicy.tune(held_out, trade_off=trade_off)
    solved = policies.BackwardInduction.fit(held_out, trade_off)
    for name, policy in (("threshold", tuned), ("backward induction", solved)):
        found = policies.evaluate(policy, test, trade_off)
        print(f"trade-off {trade_off:4}: {name:18} {found.accuracy:.2%} at {found.cost:.0%} of the compute")

# 5. One policy for all budgets: the application sets the trade-off with each request.
model.policy = policies.PolicyGradient(verbose=0).fit(held_out)
report = tflite_export.export(
    model, options.out / "early_exit.tflite", representative_data=data.x_validation[:500], labels=list(data.class_names)
)
print(report)
runner = tflite_export.load(options.out / "early_exit.tflite")
for trade_off in (0.05, 0.2, 0.5):
    result = runner(data.x_test[:500], trade_off=trade_off)
    right = float((result.output.argmax(axis=1) == data.y_test[:500]).mean())
    print(
        f"on the device, trade-off {trade_off}: {right:.1%} right, {result.executed_macs.mean():,.0f} MACs on average"
    )
capped = runner(data.x_test[:100], trade_off=0.05, max_exit=1)
print(f"capped at the second exit: last exit taken is number {capped.exit_index.max() + 1}")


# 6. The picture: images that leave at each exit.
def picture(path: pathlib.Path, columns: int = 10) -> None:
    from matplotlib.figure import Figure

    taken = model.predict_exits(data.x_test[:2000], verbose=0, trade_off=0.2)[1]
    exits = [k for k in range(model.num_exits) if (taken == k).any()]
    figure = Figure(figsize=(columns, 1.25 * len(exits)))
    figure.subplots_adjust(
        left=0.01, right=0.99, bottom=0.01, top=1 - 0.25 / (1.25 * len(exits)), wspace=0.04, hspace=0.3
    )
    for row, axes in zip(exits, np.atleast_2d(figure.subplots(len(exits), columns)), strict=True):
        share = float((taken == row).mean())
        for index, axis in zip(np.flatnonzero(taken == row)[:columns], axes, strict=False):
            axis.imshow(data.x_test[index])
        for axis in axes:
            axis.axis("off")
        axes[0].set_title(
            f"exit {row + 1}: {share:.0%} of the images, {test.costs[row]:.0%} of the compute", loc="left"
        )
    figure.savefig(path, dpi=110)


picture(options.out / "images_by_exit.png")
print(f"see {options.out / 'images_by_exit.png'}")
