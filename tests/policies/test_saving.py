import keras
import numpy as np
import pytest

from keras_efficient.policies import BackwardInduction, LearnedPolicy, SelectedExits, ThresholdPolicy


def make_policies(data):
    return {
        "threshold": ThresholdPolicy.tune(data, trade_off=0.3, measure="entropy"),
        "thresholds": ThresholdPolicy.tune(data, trade_off=0.3, per_exit=True),
        "hinge": BackwardInduction.fit(data, 0.3),
        "step": BackwardInduction.fit(data, 0.3, basis="step"),
        "learned": LearnedPolicy(num_exits=4, hidden_units=(8, 8)),
        "for any trade-off": LearnedPolicy(num_exits=4, trade_off_range=(0.02, 1.0), default_trade_off=0.25),
        "selected": SelectedExits(BackwardInduction.fit(data.select([0, 2, 3]), 0.3), [0, 2, 3], num_exits=4),
    }


KINDS = ["threshold", "thresholds", "hinge", "step", "learned", "for any trade-off", "selected"]


@pytest.mark.parametrize("kind", KINDS)
def test_save_and_load_are_bit_equal(chain, tmp_path, kind):
    data = chain[0]
    policy = make_policies(data)[kind]
    inputs = [keras.Input((4,), name=f"exit_{k}") for k in range(4)]
    price = keras.Input((), name="trade_off")
    outputs = [policy(features, exit_index=k, trade_off=price) for k, features in enumerate(inputs)]
    features = [data.features[:, k] for k in range(4)]
    if policy.takes_trade_off:
        inputs, features = [*inputs, price], [*features, np.geomspace(0.01, 2, len(data), dtype="float32")]
    model = keras.Model(inputs, outputs)
    expected = model.predict(features, verbose=0)
    model.save(tmp_path / "policy.keras")
    loaded = keras.saving.load_model(tmp_path / "policy.keras")
    for one, other in zip(expected, loaded.predict(features, verbose=0), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.shape == (len(data),)


@pytest.mark.parametrize("kind", KINDS)
def test_config_round_trip(chain, kind):
    policy = make_policies(chain[0])[kind]
    config = keras.saving.serialize_keras_object(policy)
    assert config["registered_name"].startswith("keras_efficient>")
    loaded = keras.saving.deserialize_keras_object(config)
    assert loaded.get_config() == policy.get_config()
    for name in ("num_features", "takes_trade_off", "trade_off_range", "default_trade_off"):
        assert getattr(loaded, name) == getattr(policy, name)


def test_mixed_precision_still_decides_in_float32():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        score = ThresholdPolicy(0.9)(np.array([[0.90001, 0, 0, 0]], "float32"), exit_index=0)
    finally:
        keras.config.set_dtype_policy(before)
    assert float(score[0]) > 0


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the converter needs the TensorFlow backend")
@pytest.mark.parametrize("kind", KINDS)
def test_converts_to_builtin_operators(chain, kind):
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    features = keras.Input((4,), batch_size=1)
    model = keras.Model(features, make_policies(chain[0])[kind](features, exit_index=1))
    interpreter = Interpreter(model_content=tf.lite.TFLiteConverter.from_keras_model(model).convert())
    interpreter.allocate_tensors()
    index_in, index_out = (d()[0]["index"] for d in (interpreter.get_input_details, interpreter.get_output_details))
    for features in chain[1].features[:20, 1:2]:
        interpreter.set_tensor(index_in, features)
        interpreter.invoke()
        np.testing.assert_allclose(interpreter.get_tensor(index_out), model(features), atol=1e-5)
