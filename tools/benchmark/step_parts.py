"""The parts of the training step, each in a function of its own, one after another.

    echo | python -m tools.benchmark.step_parts --backbone=resnet18 --batch_size=64

Takes the flags of `tf_dpred.main`. The sum is not the step: parts that share no data
run side by side there.
"""

from __future__ import annotations

from collections.abc import Callable

from absl import app

from tf_dpred import flags as tf_dpred_flags
from tf_dpred.main import parse
from tools.benchmark.clock import SECONDS
from tools.benchmark.step import model_and_batch
from tools.peers.serve import milliseconds, serve


def parts(model, batch) -> dict[str, Callable]:
    """Name -> a function to be timed. The last two contain the forward passes.

    The gradients are those of a first step, and are given to the optimizer again and
    again.
    """
    import tensorflow as tf

    step = tf.constant(0, tf.int64)
    variables = model.learned_variables
    gradients, _, f1, f2, z1, z2 = model._gradients(batch)
    f, z = tf.concat([f1, f2], axis=0), tf.concat([z2, z1], axis=0)
    gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]

    views = batch if model.make_views is None else model.make_views(*batch)

    def forward(network) -> Callable:
        return lambda: [network(view, training=True)[1] for view in views]

    functions = {
        "optimizer": lambda: model.optimizer.apply(gradients, variables),
        "F": lambda: model.predictor.observe(f, z),
        "W": lambda: model.predictor.update_weights(step),
    }
    if model.has_separate_target:
        functions["EMA"] = lambda: model._update_target(step)
        functions["forward target"] = forward(model.target)
    functions["forward online"] = forward(model.online)
    functions["forward and backward"] = lambda: model._gradients(batch)[0]
    functions["step"] = lambda: model.train_step(batch)
    return {
        name: tf.function(function, autograph=False)
        for name, function in functions.items()
    }


def main(argv: list[str]) -> None:
    import tensorflow as tf

    _, model, batch = model_and_batch(tf_dpred_flags.config_from_flags())
    functions = parts(model, batch)

    def call(name: str) -> None:
        # Waits for the device.
        for tensor in tf.nest.flatten(functions[name]()):
            if tensor is not None:
                tensor.numpy()

    for name in functions:
        call(name)

    def measure() -> dict[str, float]:
        found = {
            name: milliseconds(lambda name=name: call(name), SECONDS.value)
            for name in functions
        }
        forward = found["forward online"] + found.get("forward target", 0.0)
        found["backward"] = found.pop("forward and backward") - forward
        return found

    serve(measure)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
