"""One process of test_workers.py: a short run, its losses and its last weights."""

import os
import signal
import sys

import numpy as np
from test_recovery import At, pretraining

from tf_dpred.errors import Preempted, Refused, WorkerLost
from tf_dpred.records.state import training_state


def train(tf_config, settings):
    """Trains as $TF_CONFIG says, if it is not None; writes losses and state."""
    os.environ.pop("TF_CONFIG", None)
    if tf_config is not None:
        os.environ["TF_CONFIG"] = tf_config
    out, workdir = settings.pop("out"), settings.pop("workdir")
    die_at, signal_at = settings.pop("die_at", None), settings.pop("signal_at", None)
    callbacks = [
        At(step, lambda number=number: os.kill(os.getpid(), number))
        for step, number in ((die_at, signal.SIGKILL), (signal_at, signal.SIGTERM))
        if step is not None
    ]
    try:
        run = pretraining(workdir, callbacks=callbacks, **settings)
    except Refused as error:
        sys.exit(f"refused: {error}")
    try:
        run.train()
    except WorkerLost as error:
        sys.exit(f"lost: {error}")
    except Preempted as stop:
        print(f"preempted: {stop}", file=sys.stderr)
        sys.exit(75)
    state = {name: v.numpy() for name, v in training_state(run.model).items()}
    losses = [entry["loss"] for entry in run.callbacks.epoch_log.entries]
    np.savez(out, losses=losses, **state)
