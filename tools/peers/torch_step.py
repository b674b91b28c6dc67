"""DirectPred's step in PyTorch: channels-last, float32 or bfloat16 by autocast.

On a GPU where there is one (not run).

    echo | python tools/peers/torch_step.py --backbone=resnet18 --batch_size=64

The networks, loss, optimizer, F, W and EMA are those of `tf_dpred` with these flags.
Needs torch and torchvision.
"""

from __future__ import annotations

import argparse
import copy

import torch
import torchvision
from serve import rate, serve
from torch import nn
from torch.nn import functional


class Network(nn.Module):
    """Backbone and projector -> projection."""

    def __init__(self, given: argparse.Namespace):
        super().__init__()
        backbone = getattr(torchvision.models, given.backbone)()
        features = backbone.fc.in_features
        backbone.fc = nn.Identity()
        if given.stem == "small":
            backbone.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
            backbone.maxpool = nn.Identity()
        self.backbone = backbone
        hidden = given.projector_hidden
        self.projector = nn.Sequential(
            nn.Linear(features, hidden),
            nn.BatchNorm1d(hidden, affine=False),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, given.projector_dim),
        )
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.45))
        self.register_buffer("std", torch.full((1, 3, 1, 1), 0.22))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = (images.float() / 255 - self.mean) / self.std
        return self.projector(self.backbone(x)).float()


class DirectPred:
    """One step at a time; rho 0.3, eps 0.1, tau 0.996."""

    def __init__(self, given: argparse.Namespace):
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.online = Network(given).to(self.device).train()
        self.online = self.online.to(memory_format=torch.channels_last)
        self.target = copy.deepcopy(self.online)
        d = given.projector_dim
        self.w, self.f = torch.randn(d, d, device=self.device) / d, None
        self.bfloat16 = given.precision == "mixed_bfloat16"
        self.optimizer = torch.optim.SGD(
            self.online.parameters(), lr=0.03, momentum=0.9, weight_decay=4e-4
        )

    def step(self, view1: torch.Tensor, view2: torch.Tensor) -> float:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bfloat16):
            f1, f2 = self.online(view1), self.online(view2)
            with torch.no_grad():
                z1, z2 = self.target(view1), self.target(view2)
        similarity = functional.cosine_similarity
        loss = -2 * (similarity(f1 @ self.w, z2) + similarity(f2 @ self.w, z1)).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            self._set_w(torch.cat([f1, f2]))
            torch._foreach_lerp_(
                list(self.target.parameters()), list(self.online.parameters()), 0.004
            )
        return loss.item()

    def _set_w(self, f: torch.Tensor) -> None:
        batch = f.T @ f / len(f)
        self.f = batch if self.f is None else 0.3 * self.f + 0.7 * batch
        s, u = torch.linalg.eigh(self.f)
        s = s.clamp(min=0)
        p = ((s / s.max()).sqrt() + 0.1).clamp(min=1e-4)
        self.w = u @ torch.diag(p) @ u.T


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--stem", default="small", choices=("small", "imagenet"))
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--projector_hidden", type=int, default=512)
    parser.add_argument("--projector_dim", type=int, default=128)
    precisions = ("float32", "mixed_bfloat16")
    parser.add_argument("--precision", default="float32", choices=precisions)
    parser.add_argument("--compile", action="store_true", help="by torch.compile")
    parser.add_argument("--seconds", type=float, default=5.0)
    return parser.parse_args()


def main() -> None:
    given = arguments()
    torch.manual_seed(0)
    model = DirectPred(given)
    shape = given.batch_size, 3, given.image_size, given.image_size
    view1, view2 = (
        torch.randint(0, 256, shape, dtype=torch.uint8).to(
            model.device, memory_format=torch.channels_last
        )
        for _ in range(2)
    )
    if given.compile:
        model.online.compile()
        model.target.compile()
    for _ in range(2):
        model.step(view1, view2)
    serve(
        lambda: {
            "images/s": rate(
                lambda: model.step(view1, view2), given.batch_size, given.seconds
            )
        },
        torch=torch.__version__,
        threads=torch.get_num_threads(),
    )


if __name__ == "__main__":
    main()
