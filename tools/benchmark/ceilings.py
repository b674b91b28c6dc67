"""What the machine gives at best: the convolutions of a step alone, and a product.

    echo | python -m tools.benchmark.ceilings --backbone=resnet18 --batch_size=64

Takes the flags of `tf_dpred.main`. The convolutions are those of the step: forward of
two views through two networks, both gradients of two views through one.
"""

from __future__ import annotations

from absl import app

from tf_dpred import flags as tf_dpred_flags
from tf_dpred.config import Config
from tf_dpred.main import parse
from tools.benchmark.clock import SECONDS
from tools.peers.serve import milliseconds, serve

SIDE = 2048


def convolutions(config: Config):
    """A function that does the convolutions of a step, and nothing else."""
    import keras
    import tensorflow as tf

    from tf_dpred.networks import backbones

    backbone = backbones.backbone(config.network, config.data.image_size)
    dtype = keras.config.dtype_policy().compute_dtype
    layers = [x for x in backbone.layers if isinstance(x, keras.layers.Conv2D)]

    def noise(shape) -> tf.Tensor:
        return tf.cast(tf.random.normal(shape), dtype)

    given = []
    for layer in layers:
        shape = [config.training.batch_size, *layer.input.shape[1:]]
        kernel = noise(layer.kernel.shape)
        options = {"strides": layer.strides, "padding": layer.padding.upper()}
        x = noise(shape)
        y = tf.nn.conv2d(x, kernel, **options)
        given.append((x, kernel, y, options))

    def all_of_them() -> tf.Tensor:
        sums = []
        for index, (x, kernel, y, options) in enumerate(given):
            forwards = 4 if config.objective.ema else 2
            results = []
            for part in range(forwards):
                # Other numbers each time, or TensorFlow would do it once.
                results.append(tf.nn.conv2d(x, kernel + part, **options))
            for part in range(2):
                strides = [1, *options["strides"], 1]
                rest = {"strides": strides, "padding": options["padding"]}
                results.append(
                    tf.raw_ops.Conv2DBackpropFilter(
                        input=x,
                        filter_sizes=kernel.shape,
                        out_backprop=y + part,
                        **rest,
                    )
                )
                # Nobody needs the gradient of the images.
                if index:
                    results.append(
                        tf.raw_ops.Conv2DBackpropInput(
                            input_sizes=x.shape,
                            filter=kernel + part,
                            out_backprop=y,
                            **rest,
                        )
                    )
            sums += [tf.cast(r[0, 0, 0, 0], tf.float32) for r in results]
        return tf.add_n(sums)

    return tf.function(all_of_them, autograph=False)


def product(dtype: str):
    """A function of one product of two square matrices."""
    import tensorflow as tf

    a = tf.cast(tf.random.normal([SIDE, SIDE]), dtype)
    return tf.function(lambda: tf.linalg.matmul(a, a)[0, 0])


def main(argv: list[str]) -> None:
    from tf_dpred.system import devices

    config = tf_dpred_flags.config_from_flags()
    devices.setup(config.training)
    calls = {"convolutions": convolutions(config)}
    dtypes = ("float32", "bfloat16")
    calls |= {f"product {dtype}": product(dtype) for dtype in dtypes}
    for call in calls.values():
        call().numpy()

    def measure() -> dict[str, float]:
        found = {
            name: milliseconds(lambda call=call: call().numpy(), SECONDS.value)
            for name, call in calls.items()
        }
        batch = config.training.batch_size
        rates = {"images/s": 1e3 * batch / found["convolutions"]}
        for dtype in dtypes:
            rates[f"GFLOP/s {dtype}"] = 2e-6 * SIDE**3 / found[f"product {dtype}"]
        return rates

    serve(measure)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
