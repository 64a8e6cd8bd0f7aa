"""`Distiller`: a teacher for networks whose layers have losses of their own, such as the cost of gates."""

from typing import Any

import keras

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_efficient")
class Distiller(keras.distillation.Distiller):
    """`keras.distillation.Distiller`, with the losses of the student's layers.

        loss = share L(y, student(x)) + L_teacher(teacher(x), student(x)) + sum of the losses of layers

    Keras's own leaves the last term out: `callbacks.ComputeBudget` then moves no gate, and regularizers do nothing.
    It is built where the student is, so callbacks find its costs.

    >>> taught = models.Distiller(
    ...     teacher, network, [keras.distillation.LogitsDistillation(temperature=4.0)], [0.7], student_loss_weight=0.3
    ... )
    >>> taught.compile(optimizer, loss, metrics=["accuracy"])
    >>> taught.fit(x_train, y_train, epochs=20, callbacks=[callbacks.ComputeBudget(0.7)])
    >>> models.harden(network, x_batches)  # the student is what one goes on with

    Args:
        teacher: Trained network of the same inputs and outputs. It does not train, and stays frozen.
        student: Network that trains.
        distillation_losses: One of `keras.distillation`, or several.
        **kwargs: The other arguments of `keras.distillation.Distiller`: `distillation_loss_weights`,
            `student_loss_weight` (0.5), `name`.

    Reference: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015.
    """

    def __init__(self, teacher: keras.Model, student: keras.Model, distillation_losses: Any, *args: Any, **kwargs: Any):
        super().__init__(teacher, student, distillation_losses, *args, **kwargs)
        if student.built and getattr(student, "inputs", None):
            self.build(student.input_shape)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Tensor:
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        return loss + sum(self.losses) if training else loss
