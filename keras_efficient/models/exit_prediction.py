"""How a multi-exit network predicts: inputs that have left are really dropped from the batches of the later stages."""

import math
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_efficient.models.exit_training import ExitTraining
from keras_efficient.models.staged_prediction import StagedPrediction, inputs_of, is_arrays
from keras_efficient.policies.overlap import check_disjoint, row_hashes
from keras_efficient.policies.request import checked_cap, checked_trade_off


class ExitPrediction(ExitTraining):
    """The predicting half of `MultiExit`; needs its `policy`, `run_stage`, `exit_score` and `exit_costs`."""

    policy: keras.layers.Layer | None

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = "auto",
        steps: int | None = None,
        callbacks: Any = None,
        policy: keras.layers.Layer | None = None,
        trade_off: Any = None,
        max_exit: Any = None,
    ) -> Any:
        """The logits `[N, n]` of the exit that each input takes; without any policy those of all exits, by name.

        Args:
            x, batch_size, verbose, steps, callbacks: As for `keras.Model.predict`; callbacks see no batches where a
                policy decides.
            policy: Exit policy to use instead of `model.policy`.
            trade_off: A number, or `[N]`, for a policy that takes it.
            max_exit: Index of the last exit allowed, a number or `[N]`.
        """
        if policy is None and self.policy is None:
            return self.predict_all(x, batch_size, verbose, steps, callbacks)
        return self.predict_exits(x, batch_size, verbose, steps, policy, trade_off, max_exit)[0]

    def predict_all(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = "auto",
        steps: int | None = None,
        callbacks: Any = None,
    ) -> dict[str, NDArray[Any]]:
        """The logits of every exit, `{"exit_1": [N, n], ...}`, in order."""
        predictions = super().predict(x, batch_size, verbose, steps, callbacks)
        return {name: predictions[name] for name in self.exit_names}

    def predict_exits(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = "auto",
        steps: int | None = None,
        policy: keras.layers.Layer | None = None,
        trade_off: Any = None,
        max_exit: Any = None,
    ) -> tuple[NDArray[Any], NDArray[np.int32]]:
        """The logits `[N, n]` of the exit taken and its index `[N]`, 0 for the first; later stages see only who stays.

        Arguments as for `predict`. A data set's batches are taken one by one; arrays `batch_size` rows at a time.
        """
        policy = self.policy if policy is None else policy
        if policy is None:
            raise ValueError(
                "Invalid value for argument `policy`. Expected an exit policy, here or as `model.policy`. "
                "Received: None"
            )
        self.check_policy(policy)
        if is_arrays(x) and steps is not None:
            x = keras.tree.map_structure(lambda array: array[: steps * (batch_size or 32)], x)
        groups = [x] if is_arrays(x) else inputs_of(x, steps)
        found = []
        for group in groups:
            rows = len(keras.tree.flatten(group)[0])
            size = batch_size or 32 if group is x else rows
            shown = verbose not in (0, "0") and group is x
            bar = keras.utils.Progbar(rows, unit_name="input") if shown else None
            price = checked_trade_off(policy, trade_off, rows)
            cap = checked_cap(max_exit, rows, self.num_exits)
            found.append(self._staged_prediction().run(policy, group, size, price, cap, bar))
        return np.concatenate([logits for logits, _ in found]), np.concatenate([taken for _, taken in found])

    def _staged_prediction(self) -> StagedPrediction:
        """What is compiled for prediction, kept where neither Keras's tracking nor its saving looks."""
        made = self.__dict__.get("_staged")
        if made is None:
            made = StagedPrediction(self)
            object.__setattr__(self, "_staged", made)
        return made

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.fit`; remembers rows of arrays, so that `exit_data` can refuse what was trained on."""
        history = super().fit(x, *args, **kwargs)
        if x is not None and is_arrays(x):
            held_out = kwargs.get("validation_split", args[5] if len(args) > 5 else 0.0) or 0.0  # Keras takes the last
            trained = keras.tree.map_structure(lambda array: array[: math.floor(len(array) * (1.0 - held_out))], x)
            # Not by Keras's own setattr, which would track the set; it is not saved.
            object.__setattr__(self, "_fitted_rows", getattr(self, "_fitted_rows", set()) | row_hashes(trained))
        return history

    def exit_data(
        self, x: Any, y: Any, batch_size: int | None = None, verbose: Any = 0, trained_on: Any = None
    ) -> dict[str, NDArray[Any]]:
        """What exit policies are made from: `policies.ExitData(**model.exit_data(x, y))`, for data not trained on.

        On data that trained the branches every exit looks right, and a policy leaves at the first.

        Args:
            x: Held-out inputs.
            y: Their labels `[N]`.
            batch_size, verbose: As for `keras.Model.predict`.
            trained_on: Inputs that the network was trained on, to be compared with; `fit` on arrays is remembered.

        Returns:
            `logits` `[N, K, n]`, `labels` `[N]`, `costs` `[K]` (mean MACs up to each exit over those of the last) and,
            where the exits have a running summary, `summary` `[N, K, S]`, zeros at the last exit.

        Raises:
            ValueError: If inputs of `x` are among those trained on.
        """
        check_disjoint(x, trained_on, getattr(self, "_fitted_rows", None))
        found = self._staged_prediction().all_exits.predict(x, batch_size=batch_size or 32, verbose=verbose)
        names = range(1, self.num_exits + 1)
        costs = self.exit_costs(x)
        data = {
            "logits": np.stack([found[f"exit_{k}"] for k in names], axis=1),
            "labels": np.asarray(y),
            "costs": costs / costs[-1],
        }
        if self.summary_units:
            nothing = np.zeros((len(data["labels"]), self.summary_units), "float32")
            data["summary"] = np.stack([found.get(f"summary_{k}", nothing) for k in names], axis=1)
        return data
