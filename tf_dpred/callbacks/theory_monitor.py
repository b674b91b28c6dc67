"""Measures the quantities of the theory while a run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np

from tf_dpred.callbacks.json_lines import JsonLines
from tf_dpred.records import lines
from tf_dpred.theory import measures


class TheoryMonitor(JsonLines):
    """Records the spectra of F and W_p, their alignment, tau and sigma^2.

    A line of `theory.jsonl` is one measurement: step, eigenvalues of F, effective_rank,
    centered_rank (that of F without the mean's part), feature_std (mean over the epoch
    so far), tau and variance (sigma^2) of the latest batch, and, where the predictor is
    a matrix, what `measures.of_predictor` gives.
    In TensorBoard, single numbers become curves under spectrum/, and the eigenvalues of
    F (log10) and W histograms. A measurement costs three eigen-decompositions on the
    host and a line of 8 kB at d = 256.

    Args:
      path: of the file.
      every: steps between measurements; 0: only at the end of each epoch.
      tensorboard: a `callbacks.tensorboard.TensorBoard`; None: only the file.
    """

    shape: ClassVar[Any] = lines.THEORY

    def __init__(self, path: Path, every: int = 0, tensorboard=None):
        super().__init__(path)
        self.every = every
        self.tensorboard = tensorboard
        self._appends = False

    def save(self, entry: dict) -> None:
        # The file may hold steps that come again, or end in the middle of a line.
        if not self._appends or self._incomplete:
            super().save(entry)
            self._appends = True
            return
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        super().on_train_batch_end(batch, logs)
        if not self.every:
            return
        step = self.model.steps_done
        last = self.entries[-1]["step"] if self.entries else 0
        # Not `step % every`: steps_per_execution may jump over the multiples.
        if step // self.every > last // self.every:
            self.measure(step, logs or {})

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        step = self.model.steps_done
        if not self.entries or self.entries[-1]["step"] < step:
            self.measure(step, logs or {})

    def measure(self, step: int, logs: dict) -> None:
        """Takes one measurement."""
        predictor = self.model.predictor
        f = keras.ops.convert_to_numpy(predictor.correlation)
        if not np.isfinite(f).all():
            return  # the step's `FiniteCheck` names it
        s, u = measures.spectrum(f)
        mean = keras.ops.convert_to_numpy(predictor.mean)
        centered = f if predictor.centered else f - np.outer(mean, mean)
        entry: dict[str, object] = {
            "step": step,
            "eigenvalues": s,
            "effective_rank": measures.effective_rank(s),
            "centered_rank": measures.effective_rank(np.linalg.eigvalsh(centered)),
            **_known(measures.of_views(*self.model.view_moments.read())),
        }
        if "feature_std" in logs:
            entry["feature_std"] = float(logs["feature_std"])
        matrix = getattr(predictor, "matrix", None)
        if matrix is not None:
            w = keras.ops.convert_to_numpy(matrix)
            entry.update(measures.of_predictor(w, s, u))
        self.add({name: _plain(value) for name, value in entry.items()})
        if self.tensorboard is not None:
            numbers = {"largest_eigenvalue": s[0], "smallest_eigenvalue": s[-1]}
            numbers |= {k: v for k, v in entry.items() if isinstance(v, float)}
            self.tensorboard.scalars({f"spectrum/{k}": v for k, v in numbers.items()})
            histograms = {"spectrum/log10_F": np.log10(s[s > 0])}
            if matrix is not None:
                histograms["spectrum/W"] = entry["eigenvalues_w"]
            self.tensorboard.histograms(histograms)


def _known(numbers: dict[str, float | None]) -> dict[str, float | None]:
    """NaN, what a loss of one direction leaves unknown, becomes None."""
    return {k: None if v is None or np.isnan(v) else v for k, v in numbers.items()}


def _plain(value):
    """A value as JSON holds it; arrays keep four digits, as many as a picture shows."""
    if isinstance(value, np.ndarray):
        return [float(f"{x:.4g}") for x in value]
    return value
