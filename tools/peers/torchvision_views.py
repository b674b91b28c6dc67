"""BYOL's two views by torchvision in a PyTorch DataLoader.

    echo | python tools/peers/torchvision_views.py --data_dir=FOLDER

With `--views=crop` only the two random crops. Needs torch and torchvision.
"""

from __future__ import annotations

import argparse

import torch
import torchvision
from PIL import Image
from serve import serve
from torchvision import transforms
from views import arguments, files, images_per_second


def view(given: argparse.Namespace, blur: float, solarize: float):
    """The operations of one view, with BYOL's probabilities."""
    size = given.image_size
    crop = transforms.RandomResizedCrop(
        size, (0.08, 1.0), interpolation=transforms.InterpolationMode.BICUBIC
    )
    if given.views == "crop":
        return transforms.Compose([crop, transforms.PILToTensor()])
    jitter = transforms.ColorJitter(0.4, 0.4, 0.2, 0.1)
    kernel = 2 * int(size / 20) + 1
    return transforms.Compose(
        [
            crop,
            transforms.RandomHorizontalFlip(),
            transforms.RandomApply([jitter], 0.8),
            transforms.RandomGrayscale(0.2),
            transforms.RandomApply([transforms.GaussianBlur(kernel)], blur),
            transforms.RandomSolarize(128, solarize),
            transforms.PILToTensor(),
        ]
    )


class Pairs(torch.utils.data.Dataset):
    """Two views of each file."""

    def __init__(self, given: argparse.Namespace):
        self.files = files(given.data_dir)
        self.first, self.second = view(given, 1.0, 0.0), view(given, 0.1, 0.2)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int):
        image = Image.open(self.files[index]).convert("RGB")
        return self.first(image), self.second(image)


if __name__ == "__main__":
    given = arguments(__doc__)
    measure = images_per_second(Pairs(given), given)
    serve(measure, torchvision=torchvision.__version__)
