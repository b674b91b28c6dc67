"""Evaluations: the state of the process, and what is left of a result."""

import keras
import tensorflow as tf

from tf_dpred.config import Config
from tf_dpred.evaluation import evaluate


def test_setup__float32_to_the_last_bit_whatever_the_training_was(policy):
    policy("mixed_bfloat16")
    tf.config.experimental.enable_tensor_float_32_execution(True)
    evaluate.setup(Config.from_dict({"precision": "mixed_bfloat16", "batch_size": 3}))
    assert not tf.config.experimental.tensor_float_32_execution_enabled()
    assert keras.config.dtype_policy().name == "float32"
