"""The flags that make the step in PyTorch the same step."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from absl import flags

from tf_dpred import flags as tf_dpred_flags
from tf_dpred.config import Config
from tools.benchmark.race import Absent

TAKEN = {
    "network": ("backbone", "stem", "projector_hidden", "projector_dim"),
    "data": ("image_size",),
    "training": ("batch_size", "precision"),
}
# What `tools/peers/torch_step.py` does; other settings do not change its work.
ONLY = {
    "width": 1.0,
    "projector_layers": 2,
    "projector_bn_affine": False,
    "projector_output_bn": False,
    "predictor": "direct",
    "freq": 1,
    "centered": False,
    "solver": "eigh",
    "loss": "cosine",
    "symmetric_loss": True,
    "stop_gradient": True,
    "ema": True,
    "optimizer": "sgd",
    "accumulation_steps": 1,
    "augment_on": "host",
    "jit_compile": False,
    "run_eagerly": False,
}
PRECISIONS = ("float32", "mixed_bfloat16")


def torch_flags(given: Sequence[str]) -> list[str]:
    """The flags of torch_step.py for the run that flags of `tf_dpred.main` describe.

    Raises:
      Absent: it has no such step.
      ValueError: flags that tf_dpred does not accept.
    """
    values = copy.deepcopy(flags.FLAGS)
    values(["tf_dpred", *given])
    config = Config.from_dict(tf_dpred_flags.given_settings(values))
    settings = config.to_dict()
    others = [f"--{n}={settings[n]}" for n, v in ONLY.items() if settings[n] != v]
    if config.training.precision not in PRECISIONS:
        others.append(f"--precision={config.training.precision}")
    if not config.network.backbone.startswith("resnet"):
        others.append(f"--backbone={config.network.backbone}")
    if others:
        raise Absent(f"its step has no {', '.join(others)}")
    return [f"--{n}={settings[n]}" for names in TAKEN.values() for n in names]
