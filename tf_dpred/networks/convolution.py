"""The convolution of each channel for itself, by TensorFlow's own operation."""

from __future__ import annotations

import keras


@keras.saving.register_keras_serializable("tf_dpred")
class ChannelwiseConv2D(keras.layers.Conv2D):
    """Keras' Conv2D with as many groups as input channels, as ConvNeXt has them.

    Keras compiles every grouped convolution with XLA, which on a CPU takes a hundred
    times longer (7x7, 96 channels, 16 images of 16x16: 532 ms against 4.4 ms for the
    output and its gradients), and which ONNX' converter does not know. Same variables
    and numbers.
    """

    @staticmethod
    def computes(layer: keras.layers.Layer) -> bool:
        """Whether a built layer is such a convolution of Keras."""
        return (
            type(layer) is keras.layers.Conv2D
            and layer.built
            and layer.groups > 1
            and layer.kernel.shape[2] == 1
            and len(set(layer.strides)) == 1
        )

    def convolution_op(self, inputs, kernel):
        """Convolves `inputs` [n, h, w, c] with `kernel` [k, k, 1, c m]."""
        height, width, _, filters = kernel.shape
        each = filters // self.groups
        return keras.ops.depthwise_conv(
            inputs,
            keras.ops.reshape(kernel, (height, width, self.groups, each)),
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
        )
