"""Learning what tasks share while the weights stand still: the upper level of bilevel training."""

from typing import Any

import keras

from keras_efficient.models.multi_task import MultiTask


class DecisionTraining:
    """Passes over data in which only the decisions of a compiled `MultiTask` network are trained.

    Args:
        model: The network; its losses are used.
        learning_rate: Of an Adam optimizer of its own, which goes on from pass to pass.
    """

    def __init__(self, model: MultiTask, learning_rate: float) -> None:
        self._model = model
        self._layers = model.sharing_layers
        self._trainer = _Decisions(model)
        jit = getattr(model, "jit_compile", False)
        self._trainer.compile(keras.optimizers.Adam(learning_rate), jit_compile=jit)

    def run(self, data: Any) -> None:
        """One pass over `(x, y)`, in batches of 32, or a dataset of such batches; the model's metrics start anew."""
        for layer in self._layers:
            layer.learning.assign(1.0)
        x, y, *weights = data if isinstance(data, tuple) else (data, None)
        self._trainer.fit(x, y, sample_weight=weights[0] if weights else None, verbose=0)
        self._model.reset_metrics()
        for layer in self._layers:
            layer.learning.assign(0.0)


class _Decisions(keras.Model):
    """The same network with nothing trainable but decisions."""

    def __init__(self, model: MultiTask) -> None:
        super().__init__(name="decisions")
        self.model = model
        self.built = True

    @property
    def trainable_variables(self) -> list[Any]:
        return [layer.logits for layer in self.model.sharing_layers if layer.logits is not None]

    @property
    def non_trainable_variables(self) -> list[Any]:
        decisions = {id(row) for row in self.trainable_variables}
        return [variable for variable in self.variables if id(variable) not in decisions]

    @property
    def trainable_weights(self) -> list[Any]:  # what TensorFlow's training step reads
        return self.trainable_variables

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self.model(inputs, training=training)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        return self.model.compute_loss(x, y, y_pred, sample_weight, training)
