"""One process of test_workers.py: a short run, its losses and its last weights.

python tests/worker.py '{"out": ..., "workdir": ..., "die_at": ..., settings}'
"""

import json
import os
import signal
import sys

import numpy as np
from test_recovery import At, pretraining, with_callback

from tf_dpred.callbacks.checkpointing import training_state
from tf_dpred.errors import Preempted, WorkerLost


def main(settings):
    out, workdir = settings.pop("out"), settings.pop("workdir")
    die_at, signal_at = settings.pop("die_at", None), settings.pop("signal_at", None)
    try:
        run = pretraining(workdir, **settings)
    except ValueError as error:
        sys.exit(f"refused: {error}")
    if die_at is not None:
        with_callback(run, At(die_at, lambda: os.kill(os.getpid(), signal.SIGKILL)))
    if signal_at is not None:
        with_callback(run, At(signal_at, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    try:
        run.run()
    except WorkerLost as error:
        sys.exit(f"lost: {error}")
    except Preempted as stop:
        print(f"preempted: {stop}", file=sys.stderr)
        sys.exit(75)
    state = {name: v.numpy() for name, v in training_state(run.model).items()}
    losses = [entry["loss"] for entry in run.epoch_log.entries]
    np.savez(out, losses=losses, **state)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
