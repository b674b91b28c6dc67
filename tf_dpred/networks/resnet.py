"""ResNet v1 (He et al., arXiv 1512.03385) as functional Keras models.

The stride of a bottleneck sits in its 3x3 convolution and strided convolutions pad
symmetrically, as in PyTorch ("v1.5"), so weights can be carried over.
"""

from __future__ import annotations

import keras
from keras import layers

from tf_dpred.networks.normalization import BatchNormalization

# blocks per stage, and whether they are bottlenecks (1x1, 3x3, 1x1 with 4x channels)
ARCHITECTURES: dict[str, tuple[tuple[int, ...], bool]] = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
}


def resnet(
    name: str,
    image_size: int,
    *,
    width: float = 1.0,
    stem: str = "imagenet",
    zero_init_last_gamma: bool = False,
    image_channels: int = 3,
) -> keras.Model:
    """A ResNet from normalised images to pooled features.

    Args:
      name: resnet18, resnet34, resnet50 or resnet101.
      image_size: side of the input in pixels.
      width: multiplies all channels; the first stage has round(64 width).
      stem: `imagenet` (7x7 stride 2, 3x3 max-pool stride 2) or `small` (3x3 stride 1,
        no pooling), for images of about 32 pixels.
      zero_init_last_gamma: the last BN gamma of each residual branch starts at 0, so
        that a block starts as its shortcut (Goyal et al., 2017).
      image_channels: of the input.

    Returns:
      A model [n, image_size, image_size, image_channels] -> [n, c]; c = 512 width for
      resnet18 and resnet34, 2048 width for resnet50 and resnet101.

    Raises:
      ValueError: unknown name or stem.
    """
    if name not in ARCHITECTURES:
        raise ValueError(
            f"Invalid name: received {name!r}, accepted: {', '.join(ARCHITECTURES)}."
        )
    if stem not in ("imagenet", "small"):
        raise ValueError(f"Invalid stem: received {stem!r}, accepted: imagenet, small.")
    blocks, bottleneck = ARCHITECTURES[name]
    inputs = keras.Input(
        (image_size, image_size, image_channels), name="normalized_image"
    )
    channels = round(64 * width)
    if stem == "imagenet":
        x = _conv_bn(inputs, channels, 7, 2, "stem")
        x = layers.ReLU(name="stem_relu")(x)
        # PyTorch pads with -inf; 0 is the same here, as ReLU leaves no negative values.
        x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
        x = layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    else:
        x = _conv_bn(inputs, channels, 3, 1, "stem")
        x = layers.ReLU(name="stem_relu")(x)
    for stage, count in enumerate(blocks):
        for index in range(count):
            x = _block(
                x,
                round(64 * width * 2**stage),
                stride=2 if stage > 0 and index == 0 else 1,
                bottleneck=bottleneck,
                zero_init_last_gamma=zero_init_last_gamma,
                name=f"stage{stage + 1}_block{index + 1}",
            )
    outputs = layers.GlobalAveragePooling2D(name="pool", dtype=_statistics_dtype())(x)
    return keras.Model(inputs, outputs, name=name)


def _statistics_dtype() -> str:
    """Of the pooling, which sums many values: float32 under mixed precision too."""
    return keras.config.dtype_policy().variable_dtype


def _block(x, channels, *, stride, bottleneck, zero_init_last_gamma, name):
    """One residual block: relu(shortcut(x) + branch(x))."""
    out_channels = 4 * channels if bottleneck else channels
    last_gamma = "zeros" if zero_init_last_gamma else "ones"
    shortcut = x
    if stride != 1 or x.shape[-1] != out_channels:
        shortcut = _conv_bn(x, out_channels, 1, stride, f"{name}_shortcut")
    if bottleneck:
        branch = [(channels, 1, 1), (channels, 3, stride), (out_channels, 1, 1)]
    else:
        branch = [(channels, 3, stride), (out_channels, 3, 1)]
    for index, (filters, kernel, step) in enumerate(branch, start=1):
        last = index == len(branch)
        gamma = last_gamma if last else "ones"
        x = _conv_bn(x, filters, kernel, step, f"{name}_conv{index}", gamma)
        if not last:
            x = layers.ReLU(name=f"{name}_relu{index}")(x)
    x = layers.Add(name=f"{name}_add")([shortcut, x])
    return layers.ReLU(name=f"{name}_relu")(x)


def _conv_bn(x, filters, kernel, stride, name, gamma_initializer="ones"):
    """Convolution without bias, He-initialised over its outputs, then BatchNorm."""
    padding = "same"
    if stride > 1 and kernel > 1:
        # "same" would pad a strided convolution on one side only.
        x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
        padding = "valid"
    x = layers.Conv2D(
        filters,
        kernel,
        stride,
        padding=padding,
        use_bias=False,
        kernel_initializer=keras.initializers.VarianceScaling(
            2.0, "fan_out", "untruncated_normal"
        ),
        name=name,
    )(x)
    return BatchNormalization(gamma_initializer=gamma_initializer, name=f"{name}_bn")(x)
