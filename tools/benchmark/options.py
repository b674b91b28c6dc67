"""What is asked for, and the runs whose step is measured."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.benchmark import photographs
from tools.benchmark.race import ROOT

SMALL = ["--backbone=resnet18", "--stem=small", "--image_size=32", "--batch_size=64"]
SMALL += ["--projector_dim=128", "--views=cifar"]
LARGE = ["--backbone=resnet50", "--stem=imagenet", "--image_size=224"]
LARGE += ["--projector_hidden=4096", "--projector_dim=256", "--views=byol"]
BFLOAT16 = ["--precision=mixed_bfloat16"]
STEPS = {
    "ResNet-18, 32 pixels, batch 64, float32": SMALL,
    "ResNet-18, 32 pixels, batch 64, bfloat16": [*SMALL, *BFLOAT16],
    "ResNet-50, 224 pixels, batch 16, bfloat16": [
        *LARGE,
        *BFLOAT16,
        "--batch_size=16",
    ],
}


@dataclass(frozen=True)
class Options:
    """What the command line asks for.

    Attributes:
      rounds: measurements of each worker, in turns.
      seconds: of one measurement.
      peer_python: interpreter of the peers.
      data_dir: folder of JPEG files; None: made-up ones.
      steps: name -> flags of the runs whose step is measured.
    """

    rounds: int
    seconds: float
    peer_python: str
    data_dir: str | None
    steps: Mapping[str, list[str]]

    def peer(self, script: str, *arguments: str) -> list[str]:
        """The command of a script of tools/peers."""
        return [self.peer_python, str(ROOT / f"tools/peers/{script}.py"), *arguments]

    @property
    def measuring(self) -> str:
        return f"--seconds={self.seconds}"

    @contextmanager
    def images(self) -> Iterator[tuple[str, str]]:
        """(folder of JPEG files, what they are)."""
        if self.data_dir is not None:
            yield self.data_dir, "files of --data_dir"
            return
        with tempfile.TemporaryDirectory() as folder:
            photographs.write(Path(folder))
            yield folder, "made-up photographs"
