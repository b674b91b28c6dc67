"""What the peers that make views share: flags, files, the DataLoader."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from serve import steady_rate

SUFFIXES = {".jpg", ".jpeg"}


def arguments(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--data_dir", required=True, help="folder of JPEG files")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--views", default="byol", choices=("byol", "crop"))
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    return parser.parse_known_args()[0]


def files(folder: str) -> list[str]:
    """All JPEG files below the folder."""
    found = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in SUFFIXES)
    if not found:
        raise SystemExit(f"--data_dir: received {folder!r}, accepted: one with JPEGs")
    return [str(path) for path in found]


def images_per_second(dataset, given: argparse.Namespace) -> Callable[[], dict]:
    """A measurement of a PyTorch data set, epoch after epoch, by all cores."""
    import torch

    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size=given.batch_size,
        sampler=torch.utils.data.RandomSampler(
            dataset, replacement=True, num_samples=10**9
        ),
        num_workers=given.workers,
        # As in training: a worker does not share its core with its own threads.
        worker_init_fn=lambda _: torch.set_num_threads(1),
    )
    batches = iter(loader)
    for _ in range(given.workers + 1):
        next(batches)
    return lambda: {
        "images/s": steady_rate(lambda: next(batches), given.batch_size, given.seconds)
    }
