"""`check_layer`: ten checks of how a Keras layer that saves compute behaves."""

import pathlib
import tempfile
from typing import Any

import keras
import numpy as np

from keras_efficient import cost, ops, tflite_export
from keras_efficient.testing.checks import CheckFailed, require, require_close, run_checks, values_of

BATCH = 4


def check_layer(
    cls: type[keras.layers.Layer],
    *,
    input_shape: tuple[int, ...] = (8, 8, 4),
    tolerance: float = 1e-4,
    **arguments: Any,
) -> list[str]:
    """Runs ten checks on a layer class and returns their names.

    Args:
        cls: A registered Keras layer class that takes one tensor.
        input_shape: Shape of one sample.
        tolerance: Largest difference between modes and runtimes, relative to values above 1.
        **arguments: Of the constructor.

    Raises:
        CheckFailed: With the name of the check and what was found.
    """
    subject = _Subject(cls, input_shape, arguments, tolerance)
    checks = [
        ("configuration round trip", subject.configuration),
        ("symbolic and eager shapes agree", subject.shapes),
        ("works in Sequential and Functional models", subject.models),
        ("one training step moves the weights and stays finite", subject.training),
        ("mixed precision", subject.mixed_precision),
        ("`.keras` save and load gives bit-equal outputs", subject.saving),
        ("batched inference equals sample by sample", subject.batches),
        ("masked and skipped modes agree", subject.skipped),
        ("cost: executed at most dense, bytes positive", subject.cost),
        ("exported file agrees with Keras in a stock runtime", subject.exported),
    ]
    return run_checks(f"Layer `{cls.__name__}`", checks)


class _Subject:
    def __init__(
        self, cls: type[keras.layers.Layer], input_shape: tuple[int, ...], arguments: dict[str, Any], tolerance: float
    ):
        self.cls, self.input_shape, self.arguments, self.tolerance = cls, tuple(input_shape), arguments, tolerance
        self.x = np.random.default_rng(0).uniform(-1, 1, (BATCH, *self.input_shape)).astype("float32")

    def layer(self, **more: Any) -> keras.layers.Layer:
        return self.cls(**keras.saving.deserialize_keras_object(self._serialized()), **more)

    def _serialized(self) -> Any:
        return keras.saving.serialize_keras_object(self.arguments)

    def sequential(self, **more: Any) -> keras.Sequential:
        return keras.Sequential([keras.Input(self.input_shape), self.layer(**more)])

    def configuration(self) -> None:
        config = self.layer().get_config()
        copy = self.cls.from_config(config)
        require(copy.get_config() == config, f"expected {config}, got {copy.get_config()}")
        name = keras.saving.get_registered_name(self.cls)
        require(
            ">" in name, f"expected a class registered with `keras.saving.register_keras_serializable`, got {name!r}"
        )

    def shapes(self) -> None:
        layer = self.layer()
        output = layer(self.x)
        symbolic = self.layer()(keras.KerasTensor(self.x.shape))
        if type(layer).compute_output_shape is not keras.layers.Layer.compute_output_shape:
            declared = tuple(layer.compute_output_shape(self.x.shape))
            require(
                tuple(output.shape) == declared, f"compute_output_shape gave {declared}, the call {tuple(output.shape)}"
            )
        require(
            tuple(output.shape) == tuple(symbolic.shape),
            f"symbolic shape {symbolic.shape}, eager {tuple(output.shape)}",
        )

    def models(self) -> None:
        inputs = keras.Input(self.input_shape)
        functional = keras.Model(inputs, self.layer()(inputs))
        sequential = self.sequential()
        sequential.set_weights(functional.get_weights())
        require_close(sequential(self.x), functional(self.x), "Sequential and Functional", self.tolerance)

    def training(self) -> None:
        inputs = keras.Input(self.input_shape)
        features = keras.layers.Flatten()(self.layer()(inputs))
        model = keras.Model(inputs, keras.layers.Dense(2)(features))
        model.compile(optimizer=keras.optimizers.SGD(0.05), loss="mse")
        before = [values_of(variable) for variable in model.trainable_variables]
        loss = model.train_on_batch(self.x, np.ones((BATCH, 2), "float32"))
        require(bool(np.isfinite(loss)), f"the loss became {loss}")
        moved = sum(
            not np.array_equal(values_of(v), old) for v, old in zip(model.trainable_variables, before, strict=True)
        )
        require(moved > 0, "no weight moved")
        require(all(np.isfinite(values_of(v)).all() for v in model.variables), "a weight is not finite after one step")

    def mixed_precision(self) -> None:
        output = self.layer(dtype="mixed_float16")(self.x)
        dtype = keras.backend.standardize_dtype(output.dtype)
        require(dtype == "float16", f"expected float16 under mixed_float16, got {dtype}")

    def saving(self) -> None:
        model = self.sequential()
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "layer.keras"
            model.save(path)
            loaded = keras.saving.load_model(path)
        expected, actual = (values_of(m(self.x, training=False)) for m in (model, loaded))
        require(bool((expected == actual).all()), f"the loaded layer differs by {np.abs(expected - actual).max()}")

    def batches(self) -> None:
        layer = self.layer()
        whole = layer(self.x, training=False) if layer._call_has_training_arg else layer(self.x)
        single = [layer(self.x[i : i + 1]) for i in range(BATCH)]
        require_close(keras.ops.concatenate(single), whole, "one sample at a time", self.tolerance)

    def skipped(self) -> None:
        layer = self.layer()
        layer(self.x[:1])
        for sample in range(BATCH):
            x = keras.ops.convert_to_tensor(self.x[sample : sample + 1])
            masked = layer(x)
            with ops.skipping():
                require_close(layer(x), masked, "skipped mode", self.tolerance)

    def cost(self) -> None:
        report = cost.profile(self.sequential(), self.x)
        expected = report.expected_macs
        require(expected is not None and 0 <= expected <= report.macs * (1 + 1e-6), f"{expected} of {report.macs} MACs")
        require(report.bytes >= 0, f"bytes {report.bytes}")

    def exported(self) -> None:
        model = self.sequential()
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "layer.tflite"
            report = tflite_export.export(model, path, representative_data=self.x)
        if not report.parity:
            raise CheckFailed(f"the export was not verified: {report.notes}")
        worst = max(report.parity.values())
        bound = self.tolerance * max(1.0, float(np.abs(values_of(model(self.x))).max()))
        require(worst <= bound, f"expected at most {bound:.1e}, got {worst:.3e}")
