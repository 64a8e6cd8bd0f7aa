"""Less than half a bit per weight: LeNet-5 on MNIST by Adaptive Loss-aware Quantization, step by step.

    python examples/alq_lenet.py --data-dir DIR [--target 0.325] [--out alq_lenet]

`DIR` holds `mnist.npz`; without it Keras downloads the data once. All of it takes about 15 minutes on two idle cores.
`--images 2000 --epochs 1` tries the script out.
"""

import argparse
import pathlib

import keras

from keras_efficient import datasets, quantization, tflite_export
from keras_efficient.callbacks import AdaptiveBitwidth

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data-dir")
parser.add_argument("--target", type=float, default=0.325, help="average bits per weight")
parser.add_argument("--epochs", type=int, default=8, help="of straight-through training after the last pruning")
parser.add_argument("--images", type=int, help="train on so many images only")
parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("alq_lenet"))
options = parser.parse_args()
options.out.mkdir(parents=True, exist_ok=True)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

# 1. Data: MNIST, moved by up to two pixels.
data = datasets.load("mnist", options.data_dir)
x_train, y_train = data.x_train[: options.images], data.y_train[: options.images]
batches = datasets.Augmented(x_train, y_train, 128, shift=2, flip=False)

# 2. A plain Keras network, trained in floats: 430,500 weights, 1.7 MB.
model = keras.Sequential(
    [
        keras.Input((28, 28, 1)),
        keras.layers.Conv2D(20, 5, activation="relu", name="conv1"),
        keras.layers.MaxPooling2D(),
        keras.layers.Conv2D(50, 5, activation="relu", name="conv2"),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
        keras.layers.Dense(500, activation="relu", name="dense1"),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(10, name="dense2"),
    ]
)
rate = keras.optimizers.schedules.CosineDecay(2e-3, 5 * len(batches))
model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
model.fit(batches, epochs=5, validation_data=(data.x_validation, data.y_validation), verbose=2)
print(f"floats: {model.evaluate(data.x_test, data.y_test, verbose=0)[1]:.2%} of the test images right")

# 3. Every kernel becomes groups of sign vectors with scales: two per group to start with.
groups = {"conv1": "kernelwise", "conv2": "kernelwise", "dense1": 400, "dense2": 500}
report = quantization.quantize(model, bits=2, groups=groups)
print(report)
network = report.model
network.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])

# 4. Rounds of training and pruning, until the average is at the target; then training straight through.
schedule = AdaptiveBitwidth(
    options.target, keep=0.55, basis_epochs=1, coordinate_epochs=1, latent_epochs=options.epochs, final_epochs=2
)
network.fit(
    batches,
    epochs=schedule.epochs(network),
    callbacks=[schedule],
    validation_data=(data.x_validation, data.y_validation),
    verbose=2,
)
print(f"multi-bit: {network.evaluate(data.x_test, data.y_test, verbose=0)[1]:.2%} of the test images right")

# 5. Where the bits went.
print(quantization.summary(network))
quantization.picture(network, options.out / "bits.png")

# 6. A file as small as that. Custom ops need our delegate; `ops="composite"` runs everywhere and is larger.
small = quantization.finished(network)
small.save(options.out / "lenet.keras")
print(
    tflite_export.export(small, options.out / "lenet.tflite", ops="custom", representative_data=data.x_validation[:100])
)
result = tflite_export.load(options.out / "lenet.tflite")(data.x_test[:500])
print(f"in the runtime: {(result.output.argmax(axis=1) == data.y_test[:500]).mean():.1%} of 500 test images right")
