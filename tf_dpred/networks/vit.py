"""Vision transformers (Dosovitskiy et al., arXiv 2010.11929), functional Keras models.

Initial values and position embeddings are those of MoCo v3 (Chen et al., arXiv
2104.02057). There is no BatchNorm in them.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

# Heads of 64 channels at width 1; all have 12 blocks.
ARCHITECTURES: dict[str, int] = {"vit_tiny": 3, "vit_small": 6, "vit_base": 12}
BLOCKS = 12

# Patches along a side for which the positions are 0, 1, 2, ...: 224 pixels by 16.
SIDE = 14


def vit(
    name: str,
    image_size: int,
    *,
    width: float = 1.0,
    patch_size: int = 16,
    pooling: str = "mean",
    image_channels: int = 3,
) -> keras.Model:
    """A vision transformer from normalised images to pooled features.

    Args:
      name: vit_tiny, vit_small or vit_base.
      image_size: side of the input in pixels, a multiple of `patch_size`.
      width: multiplies all channels; a head has round(64 width), a multiple of 4.
      patch_size: side of a patch in pixels.
      pooling: `mean` of the patches' tokens, or the `class_token`.
      image_channels: of the input.

    Returns:
      A model [n, image_size, image_size, image_channels] -> [n, heads round(64 width)].

    Raises:
      ValueError: unknown name or pooling, or sizes that do not fit.
    """
    if name not in ARCHITECTURES:
        raise ValueError(
            f"Invalid name: received {name!r}, accepted: {', '.join(ARCHITECTURES)}."
        )
    if pooling not in ("mean", "class_token"):
        raise ValueError(
            f"Invalid pooling: received {pooling!r}, accepted: mean, class_token."
        )
    if image_size % patch_size:
        raise ValueError(
            f"Invalid image_size: received {image_size}, accepted: a multiple of "
            f"patch_size={patch_size}."
        )
    heads = ARCHITECTURES[name]
    channels = heads * round(64 * width)
    inputs = keras.Input(
        (image_size, image_size, image_channels), name="normalized_image"
    )
    bound = (6 / (image_channels * patch_size**2 + channels)) ** 0.5
    x = layers.Conv2D(
        channels,
        patch_size,
        patch_size,
        kernel_initializer=keras.initializers.RandomUniform(-bound, bound),
        name="stem",
    )(inputs)
    x = layers.Reshape((-1, channels), name="tokens")(x)
    x = Positions(name="positions")(x)
    if pooling == "class_token":
        x = ClassToken(name="class_token")(x)
    for index in range(1, BLOCKS + 1):
        x = _block(x, heads, f"block{index}")
    x = _norm("norm")(x)
    dtype = keras.config.dtype_policy().variable_dtype
    if pooling == "mean":
        x = layers.GlobalAveragePooling1D(name="pool", dtype=dtype)(x)
    else:
        x = x[:, 0]
    return keras.Model(inputs, x, name=name)


def _block(x, heads: int, name: str):
    """x + attention(norm(x)), then x + mlp(norm(x)), on tokens [n, t, c]."""
    channels = x.shape[-1]
    y = _norm(f"{name}_norm1")(x)
    x = layers.Add(name=f"{name}_add1")([x, Attention(heads, name=f"{name}_mix")(y)])
    y = _norm(f"{name}_norm2")(x)
    y = layers.Dense(4 * channels, name=f"{name}_mlp1")(y)
    y = layers.Activation("gelu", name=f"{name}_gelu")(y)
    y = layers.Dense(channels, name=f"{name}_mlp2")(y)
    return layers.Add(name=f"{name}_add2")([x, y])


def _norm(name: str) -> layers.Layer:
    return layers.LayerNormalization(epsilon=1e-6, name=name)


@keras.saving.register_keras_serializable("tf_dpred")
class Attention(layers.Layer):
    """Self-attention of tokens [n, t, c], softmax(Q K^T / sqrt(c / heads)) V.

    Keras' MultiHeadAttention starts with other kernels, whose size depends on the
    number of heads, and converters do not know its Einsum.

    Args:
      heads: a divisor of c.
    """

    def __init__(self, heads: int, **kwargs):
        super().__init__(**kwargs)
        self.heads = heads

    def build(self, shape) -> None:
        self.query, self.key, self.value, self.out = (
            layers.Dense(shape[-1], name=name, dtype=self.dtype_policy)
            for name in ("query", "key", "value", "out")
        )
        for dense in (self.query, self.key, self.value, self.out):
            dense.build(shape)

    def call(self, x):
        tokens, channels = x.shape[1:]
        each = channels // self.heads

        def split(y):
            y = keras.ops.reshape(y, (-1, tokens, self.heads, each))
            return keras.ops.transpose(y, (0, 2, 1, 3))

        query, key, value = (
            split(dense(x)) for dense in (self.query, self.key, self.value)
        )
        key = keras.ops.transpose(key, (0, 1, 3, 2))
        scores = keras.ops.matmul(query * each**-0.5, key)
        # In float32 under mixed precision too: it is a sum over all tokens.
        weights = keras.ops.softmax(keras.ops.cast(scores, self.variable_dtype))
        y = keras.ops.matmul(keras.ops.cast(weights, self.compute_dtype), value)
        y = keras.ops.transpose(y, (0, 2, 1, 3))
        return self.out(keras.ops.reshape(y, (-1, tokens, channels)))

    def compute_output_shape(self, shape):
        return shape

    def get_config(self) -> dict:
        return {**super().get_config(), "heads": self.heads}


@keras.saving.register_keras_serializable("tf_dpred")
class Positions(layers.Layer):
    """Adds to tokens [n, t, c] of a square of patches where each of them is.

    There is nothing to train and to store: weights fit images of every size.
    """

    def call(self, x):
        side = round(x.shape[1] ** 0.5)
        return x + keras.ops.cast(positions(side, x.shape[2]), self.compute_dtype)

    def compute_output_shape(self, shape):
        return shape


@keras.saving.register_keras_serializable("tf_dpred")
class ClassToken(layers.Layer):
    """Puts a token that is trained before the tokens [n, t, c] -> [n, t + 1, c]."""

    def build(self, shape) -> None:
        start = keras.initializers.RandomNormal(stddev=1e-6)
        self.token = self.add_weight((1, 1, shape[-1]), start, name="token")

    def call(self, x):
        token = keras.ops.cast(self.token, self.compute_dtype)
        first = keras.ops.broadcast_to(token, (keras.ops.shape(x)[0], 1, x.shape[-1]))
        return keras.ops.concatenate([first, x], axis=1)

    def compute_output_shape(self, shape):
        return shape[0], shape[1] + 1, shape[2]


def positions(side: int, channels: int) -> np.ndarray:
    """Sines and cosines of the place of each patch, float32 [side^2, channels].

    A quarter each: sine and cosine of w_k x, then of w_k y, with w_k = 10000^(-4k/c),
    k = 0, ..., c/4 - 1. x and y are those of the patch's centre, measured in 14ths of
    the image, so that more patches lie between those of fewer ones, and are 0 to 13 for
    224 pixels by 16, as in MoCo v3.

    Args:
      side: patches along a side of the image.
      channels: c, a multiple of 4.
    """
    at = (np.arange(side) + 0.5) * SIDE / side - 0.5
    rates = 10000.0 ** (-4 / channels * np.arange(channels // 4))
    waves = np.outer(at, rates)
    along = np.concatenate([np.sin(waves), np.cos(waves)], 1)
    shape = (side, side, channels // 2)
    x, y = np.broadcast_to(along, shape), np.broadcast_to(along[:, None], shape)
    return np.concatenate([x, y], 2).reshape(side**2, channels).astype(np.float32)
