"""BYOL's two views by lightly's `BYOLTransform` in a PyTorch DataLoader.

    echo | python tools/peers/lightly_views.py --data_dir=FOLDER

Needs lightly (1.6.0), torch and torchvision.
"""

from __future__ import annotations

import lightly
import torch
from lightly.transforms import BYOLTransform, BYOLView1Transform, BYOLView2Transform
from PIL import Image
from serve import serve
from views import arguments, files, images_per_second


class Pairs(torch.utils.data.Dataset):
    """Two views of each file."""

    def __init__(self, folder: str, size: int):
        self.files = files(folder)
        self.views = BYOLTransform(
            BYOLView1Transform(input_size=size), BYOLView2Transform(input_size=size)
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int):
        return tuple(self.views(Image.open(self.files[index]).convert("RGB")))


if __name__ == "__main__":
    given = arguments(__doc__)
    measure = images_per_second(Pairs(given.data_dir, given.image_size), given)
    serve(measure, lightly=lightly.__version__)
