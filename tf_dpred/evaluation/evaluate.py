"""The modes linear_eval, knn and finetune: one evaluation, up to its `result.json`."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from tf_dpred import schedules
from tf_dpred.config import Config, EvaluationConfig, FilesConfig, refuse
from tf_dpred.data import pipeline, views
from tf_dpred.data.bad_images import named_errors
from tf_dpred.data.source import Source
from tf_dpred.encoders import restore
from tf_dpred.encoders.restore import Encoder
from tf_dpred.evaluation import finetune as tuning
from tf_dpred.evaluation import knn as nearest
from tf_dpred.evaluation import labelled, linear
from tf_dpred.evaluation.features import FeatureExtractor
from tf_dpred.records import results
from tf_dpred.system import devices, markdown, memory

# The version of the random crops that train a classifier or the encoder. Stored results
# of another one are computed again.
STREAM = 2
# Training images that are held out to choose settings by; at most a tenth of all.
HELD_OUT_RATE, HELD_OUT_KNN = 10_009, 10_000
# What to do where the memory does not suffice.
ADVICE = "lower --eval_batch_size, or evaluate on fewer images (--eval_train_split)"


def linear_eval(config: Config, files: FilesConfig) -> None:
    """`--mode=linear_eval`: prints top-1 and top-5 of linear classifiers.

    Args:
      config: of `encoders.settings.of_encoder`.
      files: not read.

    Raises:
      Refused: see `Evaluation`.
      OSError: the result could not be written; the log holds it.
    """
    _print("linear_eval", config)


def knn(config: Config, files: FilesConfig) -> None:
    """`--mode=knn`: prints top-1 of the nearest neighbours; as `linear_eval`."""
    _print("knn", config)


def finetune(config: Config, files: FilesConfig) -> None:
    """`--mode=finetune`: prints top-1 and top-5 on few labels; as `linear_eval`."""
    _print("finetune", config)


def _print(mode: str, config: Config) -> None:
    evaluation = Evaluation(config)
    rows = _rows(evaluation.run(mode))
    header = ("start" if mode == "finetune" else "encoder", "top-1", "top-5", "chosen")
    print(markdown.table(header, rows), flush=True)
    evaluation.check_written()


class Evaluation:
    """An opened encoder and labelled data; making one does everything but compute.

    Args:
      config: of `encoders.settings.of_encoder`.
      encoder: another one than `config` names.
      splits: the training and the test images, if they were opened already.

    Raises:
      Refused: there is no such encoder, data set, split or label.
    """

    def __init__(
        self,
        config: Config,
        encoder: Encoder | None = None,
        splits: tuple[Source, Source] | None = None,
    ):
        self.config = config
        self._unwritten: OSError | None = None
        self.seed = config.training.seed
        self.strategy = devices.prepare(config.training, "float32")
        self.encoder = restore.open_encoder(config) if encoder is None else encoder
        self.pair = views.of_config(self.encoder.config)
        self.train, self.test = splits or labelled.require_splits(config)
        train, test = self.train.num_classes, self.test.num_classes
        assert train is not None and test is not None  # `require_splits` saw to it
        self.num_classes = max(train, test)

    def run(self, mode: str, *, reuse: bool = False) -> dict[str, Any]:
        """Computes one result, logs it, and writes it; see also `check_written`.

        Args:
          mode: `linear_eval`, `knn` or `finetune`.
          reuse: read the result instead where the work directory has it already, of
            these weights, images and settings.

        Returns:
          What `result.json` holds.

        Raises:
          Refused: settings that do not fit the images, or a work directory that
            cannot be written to.
          errors.RunFailed: images cannot be used, or the memory does not suffice.
        """
        identity = self._identity(mode)
        workdir = Path(self.config.training.workdir)
        if reuse and (stored := results.find(workdir, identity)):
            return stored
        results.check_can_write(workdir, identity)
        with memory.shortage_named(ADVICE), named_errors():
            found = self._compute(mode)
        result = {**identity, **found, "versions": devices.versions()}
        for start, top1, top5, chosen in _rows(result):
            logging.info("%s: top-1 %s, top-5 %s (%s)", start, top1, top5, chosen)
        try:
            logging.info("wrote %s", results.write(workdir, result))
        except OSError as error:
            logging.error("the result of %s is not kept: %s", mode, error)
            self._unwritten = error
        return result

    def check_written(self) -> None:
        """To be called when the numbers are shown.

        Raises:
          OSError: the latest result that could not be written.
        """
        if self._unwritten is not None:
            raise self._unwritten

    def _compute(self, mode: str) -> dict[str, Any]:
        """The numbers of one result, and how they were found."""
        if mode == "knn":
            return self._knn()
        if mode == "finetune":
            return self._finetune()
        if self.config.evaluation.protocol == "features":
            return self._linear_features()
        return self._linear_imagenet()

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
            "stream": None if mode == "knn" else STREAM,
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
        rate = self.config.evaluation.eval_lr
        rates, train, held = linear.RATES, self.train, None
        if rate is not None:
            rates = (rate,)
        else:
            count = max(1, min(HELD_OUT_RATE, self.train.num_examples // 10))
            train, held = labelled.hold_out(self.train, count, self.seed)
        options = self._options(linear.IMAGENET, train)
        predict = linear.inference(self._fit_classifiers(train, rates, **options))
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

    def _fit_classifiers(
        self, train: Source, rates: Sequence[float], *, epochs: int, batch_size: int
    ) -> keras.Model:
        """One linear classifier for each learning rate, over the frozen encoder."""
        steps = pipeline.steps_per_epoch(train, batch_size)
        with self.strategy.scope():
            model = linear.frozen_classifiers(
                self.encoder.copy(),
                self.num_classes,
                [schedules.peak_learning_rate(rate, batch_size) for rate in rates],
                epochs * steps,
            )
        size = self.encoder.image_size
        model.fit(
            labelled.training_batches(
                train, self.pair, size, batch_size, seed=self.seed
            ),
            epochs=epochs,
            steps_per_epoch=steps,
            callbacks=[log_epochs("linear evaluation", epochs)],
            shuffle=False,  # the batches are
            verbose=0,
        )
        return model

    def _knn(self) -> dict[str, Any]:
        train, test = self._features
        held_out = max(1, min(HELD_OUT_KNN, len(train[1]) // 10))
        grid = nearest.search(
            train, self.num_classes, held_out=held_out, seed=self.seed
        )
        (k, temperature), best = next(iter(grid.items()))
        top1 = nearest.accuracy(
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
        fraction = self.config.evaluation.label_fraction
        labels = labelled.labels_of(self.train)
        few = labelled.gather(
            self.train, labelled.balanced_subset(labels, fraction, self.seed)
        )
        defaults = {"epochs": tuning.EPOCHS, "batch_size": tuning.BATCH_SIZE}
        options = self._options(defaults, few)
        found = {"finetuned": self._finetune_from(self.encoder, few, **options)}
        if self.encoder.which in ("online", "target", "untrained"):  # no baseline
            scratch = restore.untrained(self.encoder.config, self.encoder.backbone)
            found["from_scratch"] = self._finetune_from(scratch, few, **options)
        return {
            "label_fraction": fraction,
            "labelled_images": few.num_examples,
            **options,
            **found,
        }

    def _finetune_from(
        self, encoder: Encoder, few: Source, **options: int
    ) -> dict[str, float]:
        """Top-1 and top-5 of training that starts with an encoder's weights."""
        fit = {"seed": self.seed, **options}
        with self.strategy.scope():
            rate = self.config.evaluation.eval_lr or tuning.choose_rate(
                encoder.copy, few, self.pair, encoder.preprocessing, **fit
            )
            model = tuning.train(encoder.copy(), few, self.pair, rate=rate, **fit)
        top1, top5 = tuning.accuracy(model, self._images(self.test))
        logging.info("from %s: top-1 %.4f at rate %g", encoder.which, top1, rate)
        return {"learning_rate": rate, "top1": top1, "top5": top5}

    @functools.cached_property
    def _features(self):
        """Features and labels of clean training and test images."""
        extract = FeatureExtractor(self.encoder.network)
        return extract(self._images(self.train)), extract(self._images(self.test))

    def _images(self, source: Source) -> tf.data.Dataset:
        return pipeline.evaluation_images(
            source,
            self.encoder.preprocessing,
            self.encoder.image_size,
            pipeline.EVALUATION_BATCH,
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
                refuse(
                    "eval_batch_size",
                    batch_size,
                    f"a multiple of {replicas}, the replicas, up to the "
                    f"{source.num_examples} labelled images",
                )
        return {"epochs": epochs, "batch_size": batch_size}


def _asked(evaluation: EvaluationConfig) -> dict[str, Any]:
    """Settings of the command line that replace those of the protocol."""
    names = ("eval_epochs", "eval_batch_size", "eval_lr")
    return {name: getattr(evaluation, name) for name in names}


def _rows(result: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Start, top-1, top-5 and what was chosen, of each training or classifier."""
    encoder = f"{result['encoder']}, step {result['step']}"
    if result["mode"] == "finetune":
        starts = {encoder: result["finetuned"]}
        if "from_scratch" in result:
            starts["from scratch"] = result["from_scratch"]
    else:
        starts = {encoder: result}
    rows = []
    for start, found in starts.items():
        top5 = f"{found['top5']:.4f}" if "top5" in found else "-"
        chosen = (
            f"k={found['k']}, T={found['temperature']:g}"
            if "k" in found
            else f"rate {found['learning_rate']:g}"
        )
        rows.append((start, f"{found['top1']:.4f}", top5, chosen))
    return rows


def log_epochs(what: str, epochs: int) -> keras.callbacks.Callback:
    """Logs the loss of each epoch."""
    return keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logging.info(
            "%s: epoch %d/%d, loss %.4f", what, epoch + 1, epochs, logs["loss"]
        )
    )
