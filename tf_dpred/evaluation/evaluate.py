"""One evaluation from settings to `result.json`: linear_eval, knn, finetune."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from tf_dpred import schedules
from tf_dpred.config import Config, EvaluationConfig
from tf_dpred.data import pipeline
from tf_dpred.data.source import Source
from tf_dpred.data.views import view_pair
from tf_dpred.encoders import restore
from tf_dpred.evaluation import finetune, knn, labelled, linear
from tf_dpred.evaluation.features import FeatureExtractor
from tf_dpred.records import results
from tf_dpred.system import devices

BATCH = 256
# Held out of the training images to choose by, but never more than a tenth.
HELD_OUT_RATE, HELD_OUT_KNN = 10_009, 10_000


class Evaluation:
    """An opened encoder and labelled data; making one does everything but compute.

    Args:
      config: of `encoders.settings.of_encoder`.

    Raises:
      ValueError: a setting, encoder, data set or device that does not do.
    """

    def __init__(self, config: Config):
        self.config = config
        self.seed = config.training.seed
        self.strategy = setup(config)
        self.encoder = restore.open_encoder(config)
        trained = self.encoder.config.data
        self.pair = view_pair(trained.views, trained.view_strength)
        self.train, self.test = labelled.open_splits(config)
        train, test = self.train.num_classes, self.test.num_classes
        assert train is not None and test is not None  # `open_splits` saw to it
        self.num_classes = max(train, test)

    def run(self, mode: str, *, reuse: bool = False) -> dict[str, Any]:
        """Computes and writes one result.

        Args:
          mode: `linear_eval`, `knn` or `finetune`.
          reuse: read the result instead where the work directory has it already, of
            these weights, images and settings.

        Returns:
          What `result.json` holds.
        """
        identity = self._identity(mode)
        workdir = Path(self.config.training.workdir)
        if reuse and (stored := results.find(workdir, identity)):
            return stored
        compute = {"knn": self._knn, "finetune": self._finetune}.get(mode)
        if compute is None:
            features = identity["protocol"] == "features"
            compute = self._linear_features if features else self._linear_imagenet
        result = {**identity, **compute(), "versions": devices.versions()}
        logging.info("wrote %s", results.write(workdir, result))
        return result

    def _identity(self, mode: str) -> dict[str, Any]:
        """All that decides a result."""
        evaluation = self.config.evaluation
        protocol = {
            "linear_eval": evaluation.protocol,
            "knn": None,
            "finetune": evaluation.label_fraction,
        }
        return {
            "mode": mode,
            "protocol": protocol[mode],
            "dataset": self.config.data.dataset,
            "encoder": self.encoder.which,
            "step": self.encoder.step,
            "weights": self.encoder.fingerprint,
            "train_split": self.train.split,
            "test_split": self.test.split,
            "train_size": self.train.num_examples,
            "test_size": self.test.num_examples,
            "num_classes": self.num_classes,
            "seed": self.seed,
            "asked": {} if mode == "knn" else _asked(evaluation),
        }

    def _linear_features(self) -> dict[str, Any]:
        train, test = self._features
        options = self._options(linear.FEATURES)
        found = linear.logistic_regression(
            train, test, self.num_classes, seed=self.seed, **options
        )
        return {**options, **found}

    def _linear_imagenet(self) -> dict[str, Any]:
        evaluation = self.config.evaluation
        train, held = self.train, None
        rates = linear.RATES
        if evaluation.eval_lr is not None:
            rates = (evaluation.eval_lr,)
        else:
            count = max(1, min(HELD_OUT_RATE, self.train.num_examples // 10))
            train, held = labelled.hold_out(self.train, count, self.seed)
        options = self._options(linear.IMAGENET, train)
        epochs, batch_size = options["epochs"], options["batch_size"]
        steps = pipeline.steps_per_epoch(train, batch_size)
        with self.strategy.scope():
            model = linear.frozen_classifiers(
                self.encoder.copy(),
                self.num_classes,
                [schedules.peak_learning_rate(rate, batch_size) for rate in rates],
                epochs * steps,
            )
        model.fit(
            labelled.training_batches(
                train,
                self.pair,
                self.encoder.image_size,
                batch_size,
                seed=self.seed,
            ),
            epochs=epochs,
            steps_per_epoch=steps,
            callbacks=[log_epochs("linear evaluation", epochs)],
            shuffle=False,  # the batches are
            verbose=0,
        )
        predict = linear.inference(model)
        best, chosen_on = 0, {}
        if held is not None:
            found = linear.accuracies(predict, self._images(held))[:, 0].tolist()
            best = linear.choose(rates, found)
            chosen_on = {
                "held_out_size": held.num_examples,
                "held_out_top1": dict(zip(map(str, rates), found, strict=True)),
            }
        top1, top5 = linear.accuracies(predict, self._images(self.test))[best]
        return {
            **options,
            "fitted_on": train.num_examples,
            **chosen_on,
            "learning_rate": rates[best],
            "top1": float(top1),
            "top5": float(top5),
        }

    def _knn(self) -> dict[str, Any]:
        train, test = self._features
        held_out = max(1, min(HELD_OUT_KNN, len(train[1]) // 10))
        grid = knn.search(train, self.num_classes, held_out=held_out, seed=self.seed)
        (k, temperature), best = next(iter(grid.items()))
        top1 = knn.accuracy(
            train, test, k=k, temperature=temperature, num_classes=self.num_classes
        )
        return {
            "k": k,
            "temperature": temperature,
            "held_out_size": held_out,
            "held_out_top1": best,
            "grid": [{"k": k, "T": t, "top1": a} for (k, t), a in grid.items()],
            "top1": top1,
        }

    def _finetune(self) -> dict[str, Any]:
        evaluation = self.config.evaluation
        chosen = labelled.balanced_subset(
            labelled.labels_of(self.train), evaluation.label_fraction, self.seed
        )
        few = labelled.gather(self.train, chosen)
        defaults = {"epochs": finetune.EPOCHS, "batch_size": finetune.BATCH_SIZE}
        options = self._options(defaults, few)
        scratch = restore.untrained(self.encoder.config)
        pair, fit = self.pair, {"seed": self.seed, **options}
        rows = {}
        for encoder in (self.encoder, scratch):
            with self.strategy.scope():
                rate = evaluation.eval_lr or finetune.choose_rate(
                    encoder.copy, few, pair, encoder.preprocessing, **fit
                )
                model = finetune.train(encoder.copy(), few, pair, rate=rate, **fit)
            top1, top5 = finetune.accuracy(model, self._images(self.test))
            name = "from_scratch" if encoder is scratch else "finetuned"
            rows[name] = {"learning_rate": rate, "top1": top1, "top5": top5}
            logging.info("%s: top-1 %.4f at learning rate %g", name, top1, rate)
        return {
            "label_fraction": evaluation.label_fraction,
            "labelled_images": few.num_examples,
            **options,
            **rows,
        }

    @functools.cached_property
    def _features(self):
        """Of clean training and test images."""
        extract = FeatureExtractor(self.encoder.network)
        return extract(self._images(self.train)), extract(self._images(self.test))

    def _images(self, source: Source) -> tf.data.Dataset:
        return pipeline.evaluation_images(
            source, self.encoder.preprocessing, self.encoder.image_size, BATCH
        )

    def _options(
        self, protocol: dict[str, int], source: Source | None = None
    ) -> dict[str, int]:
        """The protocol's epochs and batch, unless flags say otherwise."""
        evaluation = self.config.evaluation
        epochs = evaluation.eval_epochs or protocol["epochs"]
        batch_size = evaluation.eval_batch_size or protocol["batch_size"]
        if source is not None:
            replicas = self.strategy.num_replicas_in_sync
            if evaluation.eval_batch_size is None:
                most = min(batch_size, source.num_examples)
                batch_size = most - most % replicas
            if batch_size % replicas or not 0 < batch_size <= source.num_examples:
                raise ValueError(
                    f"--eval_batch_size: received {batch_size}, accepted: a multiple "
                    f"of {replicas}, the replicas, up to the {source.num_examples} "
                    "labelled images."
                )
        return {"epochs": epochs, "batch_size": batch_size}


def _asked(evaluation: EvaluationConfig) -> dict[str, Any]:
    """What was asked for in place of the protocol's or the chosen values."""
    names = ("eval_epochs", "eval_batch_size", "eval_lr")
    return {name: getattr(evaluation, name) for name in names}


def setup(config: Config) -> tf.distribute.Strategy:
    """Seed, float32 and devices, whatever the precision of the pre-training was."""
    training = dataclasses.replace(config.training, precision="float32")
    keras.utils.set_random_seed(training.seed)
    devices.set_precision(training.precision)
    if training.deterministic:
        tf.config.experimental.enable_op_determinism()
    if training.logical_cpus > 1:
        devices.split_cpu(training.logical_cpus)
    return devices.make_strategy(training)


def log_epochs(what: str, epochs: int) -> keras.callbacks.Callback:
    """Logs the loss of each epoch."""
    return keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logging.info(
            "%s: epoch %d/%d, loss %.4f", what, epoch + 1, epochs, logs["loss"]
        )
    )
