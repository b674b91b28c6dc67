"""The projector: representation -> projection."""

from __future__ import annotations

import keras
from keras import layers

from tf_dpred.config import NetworkConfig
from tf_dpred.networks.normalization import BatchNormalization


def projector(config: NetworkConfig, input_dim: int) -> keras.Model:
    """(Dense - BN - ReLU) per hidden layer, then Dense, or Dense - BN.

    Presets of the papers: small images 512 - BN without gamma and beta - ReLU - 128;
    BYOL 4096 - BN - ReLU - 256 without bias; SimSiam three layers of 2048 with BN on
    all, the last without gamma and beta.

    Args:
      config: layers, sizes and biases (`projector_*`).
      input_dim: length of the representation.

    Returns:
      A model [n, input_dim] -> [n, projector_dim]. Its output has the variable dtype,
      so that F and the loss are float32 under mixed precision too.
    """
    affine = config.projector_bn_affine
    inputs = keras.Input((input_dim,), name="representation")
    x = inputs
    for index in range(1, config.projector_layers):
        x = _dense(config.projector_hidden, f"projector_dense{index}")(x)
        x = BatchNormalization(
            center=affine, scale=affine, name=f"projector_bn{index}"
        )(x)
        x = layers.ReLU(name=f"projector_relu{index}")(x)
    x = _dense(
        config.projector_dim,
        f"projector_dense{config.projector_layers}",
        use_bias=config.projector_output_bias,
    )(x)
    if config.projector_output_bn:
        x = BatchNormalization(center=False, scale=False, name="projector_output_bn")(x)
    dtype = keras.config.dtype_policy().variable_dtype
    x = layers.Activation("linear", dtype=dtype, name="projection")(x)
    return keras.Model(inputs, x, name="projector")


def _dense(units: int, name: str, use_bias: bool = True) -> layers.Dense:
    return layers.Dense(
        units,
        use_bias=use_bias,
        # PyTorch's default for linear layers: U(+-1/sqrt(fan_in)).
        kernel_initializer=keras.initializers.VarianceScaling(
            1 / 3, "fan_in", "uniform"
        ),
        name=name,
    )
