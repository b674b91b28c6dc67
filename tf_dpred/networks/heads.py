"""The projector: representation -> projection."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers

from tf_dpred.config import NetworkConfig
from tf_dpred.networks.backbones import with_own_layers
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
    sizes = [config.projector_hidden] * (config.projector_layers - 1)
    return mlp(
        [*sizes, config.projector_dim],
        input_dim,
        affine=config.projector_bn_affine,
        output_bias=config.projector_output_bias,
        output_bn=config.projector_output_bn,
    )


def make(given: Sequence[int] | keras.Model, input_dim: int) -> keras.Model:
    """A new projector of these sizes, or a copy of a model with equal weights.

    Args:
      given: sizes of `mlp`; or Functional or Sequential, [n, input_dim] -> [n, d].
      input_dim: length of the representation.

    Raises:
      ValueError: no size, or one below 1; a model that does not fit.
    """
    if not isinstance(given, keras.Model):
        if not isinstance(given, Sequence) or not (
            given and all(isinstance(n, int) and n >= 1 for n in given)
        ):
            raise ValueError(
                f"Invalid projector: received {given!r}, accepted: at least one size, "
                "each an integer of at least 1, or a model."
            )
        return mlp(given, input_dim)
    if not given.built:
        given.build((None, input_dim))
    return with_own_layers(given)


def mlp(
    sizes: Sequence[int],
    input_dim: int,
    *,
    affine: bool = True,
    output_bias: bool = True,
    output_bn: bool = False,
) -> keras.Model:
    """(Dense - BN - ReLU) for each size but the last, then Dense, or Dense - BN.

    Args:
      sizes: of the layers, at least one; the last is that of the projection.
      input_dim: length of the representation.
      affine: the hidden BNs have gamma and beta.
      output_bias: the last Dense has a bias.
      output_bn: a BN without gamma and beta follows it.
    """
    inputs = keras.Input((input_dim,), name="representation")
    x = inputs
    for index, size in enumerate(sizes[:-1], start=1):
        x = _dense(size, f"projector_dense{index}")(x)
        x = BatchNormalization(
            center=affine, scale=affine, name=f"projector_bn{index}"
        )(x)
        x = layers.ReLU(name=f"projector_relu{index}")(x)
    x = _dense(sizes[-1], f"projector_dense{len(sizes)}", use_bias=output_bias)(x)
    if output_bn:
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
