"""`MultiBitModel`: a Keras model whose `fit` trains the bases of its multi-bit layers by ALQ."""

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_efficient import bases
from keras_efficient.cost.observe import sublayers
from keras_efficient.layers.multi_bit_layer import MultiBitLayer
from keras_efficient.quantization.adapting import adapt

Tensor = Any
WORTH_COMPILING = 20_000  # weights of a layer; compiling takes seconds


def multi_bit_layers(model: keras.layers.Layer) -> list[MultiBitLayer]:
    """All multi-bit layers of a model, those inside others too, in order."""
    return [layer for layer in (model, *sublayers(model)) if isinstance(layer, MultiBitLayer)]


@keras.saving.register_keras_serializable(package="keras_efficient")
class MultiBitModel(keras.Model):
    """A functional model whose multi-bit layers train by Adaptive Loss-aware Quantization.

    `quantization.quantize` makes one. It compiles, fits, saves and loads like every Keras model; what its optimizer
    trains are biases and the weights of other layers. The multi-bit layers take a step of ALQ with the gradients at
    their quantised weights, in the mode of `phase`, with the optimizer's learning rate:

    | phase | what moves |
    |---|---|
    | `"basis"` | signs and scales |
    | `"coordinate"` | scales |
    | `"moments"` | nothing, other layers run in inference; what pruning ranks by is gathered |
    | `"latent"` | float weights behind the bases, which signs and scales follow (straight through) |

    `callbacks.AdaptiveBitwidth` goes through the phases and prunes bases until an average bit-width is reached.

    Reference: Qu et al., "Adaptive Loss-aware Quantization for Multi-bit Networks", CVPR 2020.
    """

    train_function: Any  # Keras makes it

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._phase = "basis"

    @property
    def phase(self) -> str:
        """What a training step does with the bases, one of `bases.MODES`."""
        return self._phase

    @phase.setter
    def phase(self, phase: str) -> None:
        if phase not in bases.MODES:
            raise ValueError(f"Invalid value for argument `phase`. Expected one of {bases.MODES}. Received: {phase!r}")
        if phase == "latent" and self._phase != "latent":
            self.synchronize()
            for layer in self.adaptive_layers:
                layer.latent.assign(layer.grouping.rows(layer.kernel))
        if phase != self._phase:
            self._phase = phase
            self._step_changed()

    @property
    def adaptive_layers(self) -> list[MultiBitLayer]:
        """The layers whose bases train: those that are not frozen."""
        return [layer for layer in multi_bit_layers(self) if layer.adaptive and layer.trainable]

    @property
    def average_bits(self) -> float:
        """Bases per weight, mean over the weights of all multi-bit layers; scales are not counted."""
        return sum(layer.average_bits * layer.num_weights for layer in multi_bit_layers(self)) / self.num_weights

    @property
    def least_bits(self) -> float:
        """Average bit-width with one basis left in every layer whose bases train."""
        layers, training = multi_bit_layers(self), {id(layer) for layer in self.adaptive_layers}
        left = sum(
            layer.grouping.size if id(layer) in training else layer.average_bits * layer.num_weights for layer in layers
        )
        return left / self.num_weights

    @property
    def num_weights(self) -> int:
        """Weights that bases stand for, of all multi-bit layers."""
        return sum(layer.num_weights for layer in multi_bit_layers(self))

    def synchronize(self) -> None:
        """On JAX, brings variables up to date in the middle of `fit`."""
        if keras.backend.backend() == "jax":
            self.jax_state_sync()

    def make_train_function(self, force: bool = False) -> Any:
        """As in Keras; steps are kept by what they compute, so that a phase that comes back is not compiled again.

        Raises:
            ValueError: If the optimizer scales the loss, as Keras makes it for layers of the policy `mixed_float16`:
                bases take the gradients as they are.
        """
        scaled = isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer)
        if scaled or getattr(self.optimizer, "loss_scale_factor", None):
            raise ValueError(
                "Invalid value for argument `optimizer`. Expected one that does not scale the loss, and layers of "
                f"another policy than `mixed_float16`. Received: {type(self.optimizer).__name__}"
            )
        before = self.train_function
        if before is None:  # `compile` came before
            self._steps_made = {}
        elif not force:  # weights may have been set since the last `fit`
            self.synchronize()
            for layer in self.adaptive_layers:
                layer.count_bases()
            self._step_changed()
            return self.train_function
        # JAX takes equal functions for one, and bound methods are equal: every kind of step needs one of its own.
        self.__dict__["train_step"] = lambda *args: type(self).train_step(self, *args)
        try:
            result = super().make_train_function(force=force)
        finally:
            del self.__dict__["train_step"]
        if self.train_function is not before:
            self._steps_made[self._step_kind()] = self.train_function
        return result

    def _step_kind(self) -> str:
        return f"{self._phase} {[layer.live_bases for layer in self.adaptive_layers]}"

    def _step_changed(self) -> None:
        if getattr(self, "train_function", None) is None:
            return
        made = self._steps_made.get(self._step_kind())
        if made is None:
            self.make_train_function(force=True)
        else:
            self.train_function = made

    # --- pruning ------------------------------------------------------------------------------------------------------

    def prune(self, bits: float) -> int:
        """Removes the bases whose loss the model of the loss rates least, until `bits` less are left.

        Ranked over all layers by `-p a + h a^2 / 2` (see `bases.importance`) of scale a.

        Args:
            bits: How many bits of weights to remove. At least one basis goes; every layer keeps one.

        Returns:
            How many bases were removed.
        """
        self.synchronize()
        layers = self.adaptive_layers
        rate = float(ops.convert_to_numpy(self.optimizer.learning_rate))
        losses, sizes, owners = [], [], []
        scales = [np.array(ops.convert_to_numpy(layer.scales)) for layer in layers]
        for number, layer in enumerate(layers):
            values = _importance(layer, rate).ravel()
            live = np.flatnonzero(scales[number])
            live = live[np.argsort(values[live], kind="stable")][:-1]  # the last one of a layer stays
            losses.append(values[live])
            sizes.append(np.full(len(live), layer.grouping.size))
            owners.append(np.stack([np.full(len(live), number), live]))
        order = np.argsort(np.concatenate(losses), kind="stable")
        removed = np.cumsum(np.concatenate(sizes)[order])
        count = int(np.searchsorted(removed, bits - 1e-6, side="left")) + 1
        chosen = np.concatenate(owners, axis=1)[:, order[:count]]
        for number, layer in enumerate(layers):
            pruned = chosen[1, chosen[0] == number]
            if len(pruned):
                scales[number].ravel()[pruned] = 0.0
                layer.scales.assign(scales[number])
                layer.kernel.assign(layer.float_kernel())
        return chosen.shape[1]

    def compact(self) -> None:
        """Sorts the bases of every group, live ones and large scales first; steps then compute live ones alone."""
        self.synchronize()
        before = [layer.live_bases for layer in self.adaptive_layers]
        for layer in self.adaptive_layers:
            layer.compact()
        if [layer.live_bases for layer in self.adaptive_layers] != before:
            self._step_changed()

    # --- training -----------------------------------------------------------------------------------------------------

    def train_step(self, *args: Any) -> Any:
        """One step of the optimizer and of ALQ on a batch."""
        if keras.backend.backend() == "tensorflow":
            return self._tensorflow_step(*args)
        if keras.backend.backend() == "jax":
            return self._jax_step(*args)
        raise NotImplementedError(
            f"Training of multi-bit layers expected the TensorFlow or JAX backend. Received: {keras.backend.backend()}"
        )

    def _tensorflow_step(self, data: Any) -> dict[str, Tensor]:
        import tensorflow as tf

        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        layers = self.adaptive_layers
        with tf.GradientTape() as tape:
            for layer in layers:
                tape.watch(layer.kernel.value)
            y_pred = self(x, training=self._phase != "moments")
            loss = self.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight)
        weights = self.trainable_variables
        kernels = [layer.kernel.value for layer in layers]
        gradients = tape.gradient(loss, [v.value for v in weights] + kernels)
        if weights:
            self.optimizer.apply(gradients[: len(weights)], weights)
        slopes = [
            tf.zeros_like(kernel) if slope is None else slope
            for kernel, slope in zip(kernels, gradients[len(weights) :], strict=True)
        ]
        self._adapt(slopes, tf.function(bases.step, jit_compile=True))  # fused: twice as fast
        self._update_metrics(loss, x, y, y_pred, sample_weight)
        return self.get_metrics_result()

    def _jax_step(self, state: Any, data: Any) -> Any:
        import jax

        trainable, non_trainable, optimizer_state, metrics_state = state
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        kernels = [layer.kernel for layer in self.adaptive_layers]
        positions = [next(i for i, v in enumerate(self.non_trainable_variables) if v is kernel) for kernel in kernels]

        def loss_of(trainable: Any, kernel_values: Any, non_trainable: Any) -> Any:
            values = list(non_trainable)
            for position, value in zip(positions, kernel_values, strict=True):
                values[position] = value
            mapping = [
                *zip(self.trainable_variables, trainable, strict=True),
                *zip(self.non_trainable_variables, values, strict=True),
                *zip(self.metrics_variables, metrics_state, strict=True),
            ]
            with keras.StatelessScope(mapping, collect_losses=True) as scope:
                y_pred = self(x, training=self._phase != "moments")
                loss = self.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight)
            values = [_current(scope, v) for v in self.non_trainable_variables]
            measured = [_current(scope, v) for v in self.metrics_variables]  # each loss of several
            return loss, (y_pred, values, measured)

        gradient = jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True)
        kernel_values = [non_trainable[position] for position in positions]
        (loss, found), (slopes, kernel_slopes) = gradient(trainable, kernel_values, non_trainable)
        y_pred, non_trainable, metrics_state = found
        if trainable:
            trainable, optimizer_state = self.optimizer.stateless_apply(optimizer_state, slopes, trainable)
        mapping = [
            *zip(self.non_trainable_variables, non_trainable, strict=True),
            *zip(self.optimizer.variables, optimizer_state, strict=True),
            *zip(self.metrics_variables, metrics_state, strict=True),
        ]
        with keras.StatelessScope(mapping) as scope:
            self._adapt(kernel_slopes, bases.step)
            self._update_metrics(loss, x, y, y_pred, sample_weight)
            logs = self.get_metrics_result()
        non_trainable = [_current(scope, v) for v in self.non_trainable_variables]
        metrics_state = [_current(scope, v) for v in self.metrics_variables]
        return logs, (trainable, non_trainable, optimizer_state, metrics_state)

    def _adapt(self, gradients: list[Tensor], step: Any) -> None:
        rate = ops.convert_to_tensor(self.optimizer.learning_rate)
        for layer, gradient in zip(self.adaptive_layers, gradients, strict=True):
            adapt(layer, gradient, self._phase, rate, step if layer.num_weights >= WORTH_COMPILING else bases.step)

    def _update_metrics(self, loss: Tensor, x: Tensor, y: Tensor, y_pred: Tensor, sample_weight: Tensor) -> None:
        self._loss_tracker.update_state(loss, sample_weight=ops.shape(keras.tree.flatten(x)[0])[0])
        self.compute_metrics(x, y, y_pred, sample_weight)


def _current(scope: keras.StatelessScope, variable: Any) -> Tensor:
    value = scope.get_current_value(variable)
    return variable.value if value is None else value


def _importance(layer: MultiBitLayer, learning_rate: float) -> NDArray[np.float32]:
    """Modelled increase of the loss per scale `[R, I]`."""
    moments = tuple(ops.convert_to_tensor(part) for part in layer.scale_moments)
    seen = ops.maximum(ops.convert_to_tensor(layer.scale_gradients_seen), 1.0)
    values = bases.importance(ops.convert_to_tensor(layer.scales), moments, learning_rate, seen)
    return np.asarray(ops.convert_to_numpy(values))
