"""The two networks of the comparison, and their training in floats; it goes on where it was interrupted."""

import dataclasses
import pathlib

import keras

from benchmarks.training import save
from keras_efficient import datasets

BATCH = 128


@dataclasses.dataclass(frozen=True)
class Training:
    """How a network is trained in floats, with Adam and a cosine decay of the learning rate.

    Attributes:
        epochs: How many.
        rate: Learning rate at its peak.
        warmup_epochs: Epochs in which it rises to the peak.
        weight_decay: Of kernels, decoupled (AdamW).
    """

    epochs: int
    rate: float = 2e-3
    warmup_epochs: int = 0
    weight_decay: float = 0.0

    def optimizer(self, steps: int) -> keras.optimizers.Optimizer:
        """For epochs of `steps` batches."""
        rising = self.warmup_epochs * steps
        rate = keras.optimizers.schedules.CosineDecay(
            self.rate / 100 if rising else self.rate,
            self.epochs * steps - rising,
            warmup_target=self.rate if rising else None,
            warmup_steps=rising,
        )
        optimizer = keras.optimizers.AdamW(rate, weight_decay=self.weight_decay)
        optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
        return optimizer


def lenet5() -> keras.Model:
    """LeNet-5 with 430,500 weights: two convolutions (5 x 5, 20 and 50 filters), two dense layers (500 and 10)."""
    x = inputs = keras.Input((28, 28, 1), name="image")
    x = keras.layers.Conv2D(20, 5, activation="relu", name="conv1")(x)  # ReLU and maximum may change places
    x = keras.layers.MaxPooling2D(name="pool1")(x)
    x = keras.layers.Conv2D(50, 5, activation="relu", name="conv2")(x)
    x = keras.layers.MaxPooling2D(name="pool2")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(500, activation="relu", name="dense1")(x)
    x = keras.layers.Dropout(0.5, name="dropout")(x)
    return keras.Model(inputs, keras.layers.Dense(10, name="dense2")(x), name="lenet5")


def vgg_small(width: float) -> keras.Model:
    """VGG-small: three pairs of 3 x 3 convolutions (128, 256, 512 filters times `width`) and three dense layers."""
    x = inputs = keras.Input((32, 32, 3), name="image")
    for number, filters in enumerate((128, 128, 256, 256, 512, 512), start=1):
        x = keras.layers.Conv2D(int(filters * width), 3, padding="same", use_bias=False, name=f"conv{number}")(x)
        if number % 2 == 0:
            x = keras.layers.MaxPooling2D(name=f"pool{number // 2}")(x)
        x = keras.layers.BatchNormalization(name=f"norm{number}")(x)
        x = keras.layers.ReLU(name=f"relu{number}")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    for number in (1, 2):
        x = keras.layers.Dense(int(1024 * width), use_bias=False, name=f"dense{number}")(x)
        x = keras.layers.BatchNormalization(name=f"norm_dense{number}")(x)
        x = keras.layers.ReLU(name=f"relu_dense{number}")(x)
    return keras.Model(inputs, keras.layers.Dense(10, name="dense3")(x), name="vgg_small")


def loss() -> keras.losses.Loss:
    """The loss of all networks here."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def batches(dataset: datasets.Dataset, seed: int) -> keras.utils.PyDataset:
    """Training images: MNIST moves by up to two pixels, CIFAR-10 by up to four and is mirrored."""
    mnist = dataset.name == "mnist"
    options = {"shift": 2 if mnist else 4, "flip": not mnist, "seed": seed}
    if keras.backend.backend() == "jax":
        from benchmarks.alq.on_device import OnDevice

        return OnDevice(dataset.x_train, dataset.y_train, BATCH, **options)
    return datasets.Augmented(dataset.x_train, dataset.y_train, BATCH, **options)


def backups(path: pathlib.Path, wanted: bool) -> list[keras.callbacks.Callback]:
    """What lets `fit` go on where it was interrupted; where it is not wanted, an interrupted training starts anew."""
    return [keras.callbacks.BackupAndRestore(str(path.with_suffix(".backup")))] if wanted else []


def trained(
    path: pathlib.Path,
    model: keras.Model,
    dataset: datasets.Dataset,
    training: Training,
    seed: int = 0,
    with_backups: bool = True,
) -> keras.Model:
    """The network at `path`, trained first where it is not there.

    Its large kernels are rounded to half precision, so that a copy in 16 bits is the same network.
    """
    if path.exists():
        return keras.saving.load_model(path, compile=False)
    data = batches(dataset, seed)
    model.compile(training.optimizer(len(data)), loss(), metrics=["accuracy"])
    path.parent.mkdir(parents=True, exist_ok=True)
    model.fit(
        data,
        epochs=training.epochs,
        validation_data=(dataset.x_validation, dataset.y_validation),
        validation_batch_size=500,
        callbacks=backups(path, with_backups),
        verbose=2,
    )
    for variable in model.trainable_variables:
        if len(variable.shape) > 1:
            variable.assign(keras.ops.convert_to_numpy(variable).astype("float16").astype("float32"))
    save(model, path, include_optimizer=False)
    return model


def accuracies(model: keras.Model, dataset: datasets.Dataset) -> dict[str, float]:
    """Shares of validation and test images classified right."""
    found = {}
    for part in ("validation", "test"):
        x, y = getattr(dataset, f"x_{part}"), getattr(dataset, f"y_{part}")
        labels = model.predict(x, batch_size=500, verbose=0).argmax(axis=1)
        found[part] = float((labels == y).mean())
    return found


def device_names() -> list[str]:
    """What the JAX backend computes on; empty for other backends."""
    if keras.backend.backend() != "jax":
        return []
    import jax

    return [device.device_kind for device in jax.devices()]
