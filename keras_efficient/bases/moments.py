"""AMSGrad's moments, and the quadratic model of the loss that they give.

    f(w) = p' (w - w_t) + 1/2 (w - w_t)' diag(h) (w - w_t)
    p = lr m / (1 - beta_1^t),   h = (sqrt(v_max) + eps) / sqrt(1 - beta_2^t)

The model's minimiser `w_t - p / h` is one step of AMSGrad.
"""

from typing import Any

from keras import ops

Tensor = Any
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


def updated(moments: tuple[Tensor, Tensor, Tensor], gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """First moment, second moment and its largest value so far, one gradient later."""
    mean, square, largest = moments
    mean = BETA_1 * mean + (1.0 - BETA_1) * gradient
    square = BETA_2 * square + (1.0 - BETA_2) * ops.square(gradient)
    return mean, square, ops.maximum(largest, square)


def amsgrad(moments: tuple[Tensor, Tensor, Tensor], learning_rate: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
    """The model's gradient p (with the learning rate inside) and diagonal h after `steps` gradients."""
    return learning_rate * moments[0] / (1.0 - BETA_1**steps), hessian(moments[2], steps)


def hessian(largest: Tensor, steps: Tensor) -> Tensor:
    """h of the largest second moment so far."""
    return (ops.sqrt(largest) + EPSILON) / ops.sqrt(1.0 - BETA_2**steps)
