"""kNN accuracy of the online representation while training."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from tf_dpred.config import EvaluationConfig
from tf_dpred.evaluation import knn
from tf_dpred.evaluation.features import FeatureExtractor, Outputs


class KNNMonitor(keras.callbacks.Callback):
    """Adds `knn` to the logs: before training, every N epochs, and after the last.

    Args:
      bank: batches of (images, labels) that are searched.
      test: batches of (images, labels) that are classified.
      num_classes: of the labels.
      config: k, temperature and how often.
      epochs: of the whole run.
      outputs: makes `Outputs` of a network; monitors that share it trace once.

    Attributes:
      features: of the last evaluation: `bank` and `test` -> (features, labels).
    """

    def __init__(
        self,
        bank: tf.data.Dataset,
        test: tf.data.Dataset,
        num_classes: int,
        config: EvaluationConfig,
        epochs: int,
        outputs: Callable[[keras.Model], Outputs] = Outputs,
    ):
        super().__init__()
        self.bank, self.test = bank, test
        self.num_classes = num_classes
        self.config = config
        self.epochs = epochs
        self._outputs = outputs
        self.features: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        self._extract = FeatureExtractor(self._outputs(model.online))

    def on_train_begin(self, logs: dict | None = None) -> None:
        if self.model.steps_done == 0:
            accuracy = self._evaluate(0)
            if logs is not None:
                logs["knn"] = accuracy

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        done = epoch + 1
        if done % self.config.knn_every and done != self.epochs:
            return
        accuracy = self._evaluate(done)
        if logs is not None:
            logs["knn"] = accuracy

    def _evaluate(self, epoch: int) -> float:
        bank, test = self._extract(self.bank), self._extract(self.test)
        self.features = {"bank": bank, "test": test}
        accuracy = knn.accuracy(
            bank,
            test,
            k=self.config.knn_k,
            temperature=self.config.knn_temperature,
            num_classes=self.num_classes,
        )
        logging.info(
            "epoch %d: kNN %.4f (k=%d, T=%g; %d train, %d test images)",
            epoch,
            accuracy,
            self.config.knn_k,
            self.config.knn_temperature,
            len(bank[1]),
            len(test[1]),
        )
        return accuracy
