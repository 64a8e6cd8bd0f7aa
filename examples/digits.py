"""A network that leaves early on easy digits: trained with plain Keras, exported, run on its own file.

python examples/digits.py [FILE.tflite]
"""

import sys

import keras
import numpy as np

from keras_efficient import cost, datasets, tflite_export
from keras_efficient.callbacks import ComputeBudget
from keras_efficient.layers import EarlyExit, GatedConv2D, MultiBitDense
from keras_efficient.models import MultiExit
from keras_efficient.policies import ExitData, ThresholdPolicy


def main(file: str = "digits.tflite", epochs: int = 15) -> None:
    """Trains, decides when to leave, exports to `file`, and prints what running it saves."""
    digits = datasets.load("digits")
    network = keras.Sequential([keras.Input(digits.input_shape)])
    network.add(keras.layers.Conv2D(8, 3, padding="same", activation="relu"))
    network.add(GatedConv2D(16, 3, strides=2, padding="same", activation="relu", batch_normalization=True))
    network.add(EarlyExit(digits.num_classes, pool="average_max"))
    network.add(GatedConv2D(64, 3, padding="same", activation="relu", batch_normalization=True))
    network.add(GatedConv2D(64, 3, padding="same", activation="relu", batch_normalization=True))
    network.add(keras.layers.GlobalAveragePooling2D())
    network.add(MultiBitDense(digits.num_classes, bits=2))

    model = MultiExit.from_model(network)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    model.fit(digits.x_train, digits.y_train, batch_size=32, epochs=epochs, callbacks=[ComputeBudget(target=0.5)])

    held_out = ExitData(**model.exit_data(digits.x_validation, digits.y_validation))
    model.policy = ThresholdPolicy.tune(held_out, accuracy_drop=0.0)
    print(tflite_export.export(model, file, representative_data=digits.x_validation))

    result = tflite_export.load(file)(digits.x_test)
    accuracy = np.mean(result.output.argmax(axis=1) == digits.y_test)
    share = result.executed_macs.mean() / cost.profile(model).macs
    print(
        f"accuracy {accuracy:.1%} with {share:.0%} of the multiply-adds; exits taken {np.bincount(result.exit_index)}"
    )


if __name__ == "__main__":
    main(*sys.argv[1:2])
