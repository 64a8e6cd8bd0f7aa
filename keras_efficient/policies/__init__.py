"""When to leave a multi-exit network: policies that are tuned, solved or learned on cached features of held-out data.

Each policy is a Keras layer, so it is saved and exported with the network it decides for.
"""

from keras_efficient.policies.backward_induction import BackwardInduction, trade_off_for_budget
from keras_efficient.policies.evaluation import (
    PolicyResult,
    best_fixed_exit,
    evaluate,
    evaluate_exits,
    oracle,
    paired_bootstrap,
)
from keras_efficient.policies.exact import ExactSolution, exact_backward_induction
from keras_efficient.policies.exit_data import ExitData
from keras_efficient.policies.exit_policy import ExitPolicy, check_fits, decide
from keras_efficient.policies.exit_policy_trainer import ExitPolicyTrainer
from keras_efficient.policies.learned_policy import LearnedPolicy
from keras_efficient.policies.overlap import check_disjoint
from keras_efficient.policies.policy_gradient import PolicyGradient
from keras_efficient.policies.request import cap_for_deadline
from keras_efficient.policies.selected_exits import SelectedExits, select_exits
from keras_efficient.policies.threshold_policy import ThresholdCurve, ThresholdPolicy, threshold_curve

__all__ = [
    "BackwardInduction",
    "ExactSolution",
    "ExitData",
    "ExitPolicy",
    "ExitPolicyTrainer",
    "LearnedPolicy",
    "PolicyGradient",
    "PolicyResult",
    "SelectedExits",
    "ThresholdCurve",
    "ThresholdPolicy",
    "best_fixed_exit",
    "cap_for_deadline",
    "check_disjoint",
    "check_fits",
    "decide",
    "evaluate",
    "evaluate_exits",
    "exact_backward_induction",
    "oracle",
    "paired_bootstrap",
    "select_exits",
    "threshold_curve",
    "trade_off_for_budget",
]
