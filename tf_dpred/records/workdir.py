"""The layout of a work directory: what a run leaves, and where.

flags.json      settings, images, and what computed: versions, environment, devices
checkpoints/    step-00001234.npz, the newest few; best-00000880.npz of --keep_best
epochs.jsonl    the metrics of each epoch
theory.jsonl    spectra and alignment, measured at intervals
tensorboard/    curves and pictures
result.json     the last metrics
bad_images.txt  image files that could not be used, and why
evaluation/     results of linear_eval, knn and finetune
export/<step>/  exported encoders
backbone.keras  the backbone as a program gave it to the run
views.json      the layers that make the views, where a program gave them
preview.png     views of some training images
theory.png      spectra of F and W (and .svg), drawn by --mode=diagnose
report.html     the page of --mode=report
.lock           held while a process trains here; the system frees it after a crash
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from tf_dpred.config import refuse


class Workdir:
    """The paths of a work directory. Making one touches nothing on the disk.

    Args:
      path: of the directory, which need not exist.
    """

    def __init__(self, path: str | Path):
        self.given = str(path)  # a Path would drop a slash of gs://
        self.path = Path(path)
        self.flags = self.path / "flags.json"
        self.checkpoints = self.path / "checkpoints"
        self.epochs = self.path / "epochs.jsonl"
        self.theory = self.path / "theory.jsonl"
        self.tensorboard = self.path / "tensorboard"
        self.result = self.path / "result.json"
        self.bad_images = self.path / "bad_images.txt"
        self.evaluation = self.path / "evaluation"
        self.export = self.path / "export"
        self.backbone = self.path / "backbone.keras"
        self.views = self.path / "views.json"
        self.preview = self.path / "preview.png"
        self.spectra = self.path / "theory"  # .png and .svg
        self.report = self.path / "report.html"
        self.lock = self.path / ".lock"

    def create(self) -> list[Path]:
        """Makes the directory, if it is missing, and checks that it can be written to.

        Returns:
          The directories that were made, the innermost first; for `remove`.

        Raises:
          Refused: it cannot be made or written to.
        """
        if "://" in self.given:
            refuse(
                "workdir",
                self.given,
                "a directory of this machine's file system (a bucket can be mounted)",
            )
        places = [self.path, *self.path.parents]
        made = [place for place in places if not os.path.lexists(place)]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            # A file without a name: nothing is left of it, whenever the process ends.
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            self.remove(made)
            refuse(
                "workdir",
                self.given,
                f"a directory that can be written to ({error.strerror})",
            )
        return made

    def remove(self, made: list[Path]) -> None:
        """Removes directories that `create` made, as long as they are empty."""
        with contextlib.suppress(OSError):
            for place in made:
                place.rmdir()
