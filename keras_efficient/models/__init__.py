"""Networks made of our layers."""

from keras_efficient.models.distillation import Distiller
from keras_efficient.models.gate_statistics import GateStatistics, gate_statistics
from keras_efficient.models.guided_attention import GuidedAttention
from keras_efficient.models.hardening import harden, reestimate_batch_normalization, remove_idle_branches
from keras_efficient.models.lc_net import lc_net
from keras_efficient.models.lc_resnet import LCResNet, copy_weights
from keras_efficient.models.multi_exit import MultiExit
from keras_efficient.models.multi_task import MultiTask
from keras_efficient.models.recurrent_attention import RecurrentAttention
from keras_efficient.models.resnet import thin_resnet

__all__ = [
    "Distiller",
    "GateStatistics",
    "GuidedAttention",
    "LCResNet",
    "MultiExit",
    "MultiTask",
    "RecurrentAttention",
    "copy_weights",
    "gate_statistics",
    "harden",
    "lc_net",
    "reestimate_batch_normalization",
    "remove_idle_branches",
    "thin_resnet",
]
