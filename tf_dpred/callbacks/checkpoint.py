"""Everything that the rest of a run depends on, on disk."""

from __future__ import annotations

from pathlib import Path

import keras
import tensorflow as tf
from absl import logging

from tf_dpred.model import DirectPred


def training_state(model: DirectPred) -> dict[str, tf.Variable]:
    """All variables of a compiled model, by unique names.

    Online network, target with its own BatchNorm statistics, predictor with F and W,
    and the optimizer with its step count. Listed here by hand and not left to object
    tracking, so that a restore can be checked to have filled all of them.
    """
    parts = {
        "online": model.online.variables,
        "predictor": model.predictor.variables,
        "optimizer": model.optimizer.variables,
    }
    if model.has_separate_target:
        parts["target"] = model.target.variables
    return {
        f"{part}/{index:04d}/{variable.path}": variable.value
        for part, variables in parts.items()
        for index, variable in enumerate(variables)
    }


class Checkpoints(keras.callbacks.Callback):
    """Saves the training state every N epochs and after the last.

    `tf.train.CheckpointManager` writes beside and renames, checks sums when reading,
    and removes what is too old.

    Args:
      model: compiled.
      directory: of the checkpoints.
      every: epochs.
      keep: checkpoints kept.
    """

    def __init__(self, model: DirectPred, directory: Path, every: int, keep: int):
        super().__init__()
        self.every = every
        self._checkpoint = tf.train.Checkpoint(state=training_state(model))
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, str(directory), keep, checkpoint_name="step"
        )

    def restore(self) -> str | None:
        """Restores the latest checkpoint.

        Returns:
          Its path, or None if there is none.

        Raises:
          AssertionError: variables of model and checkpoint do not match one to one.
        """
        path = self._manager.latest_checkpoint
        if path:
            self._checkpoint.restore(path).assert_consumed()
        return path

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        done = epoch + 1
        if done % self.every and done != self.params["epochs"]:
            return
        step = int(self.model.optimizer.iterations)
        path = self._manager.save(checkpoint_number=step)
        logging.info("epoch %d: saved %s", done, path)
