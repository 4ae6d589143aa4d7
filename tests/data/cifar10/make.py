"""Makes net.pt and images.npz: a small network trained on CIFAR-10 (about 85% clean) and 300 test images.

usage: python tests/data/cifar10/make.py CIFAR10_NPZ   (x_train, y_train, x_test, y_test; uint8, (n, 32, 32, 3))
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

HERE = Path(__file__).parent
EPOCHS, BATCH_SIZE, PEAK_LR = 8, 128, 0.2


def block(inputs: int, outputs: int) -> list[nn.Module]:
    """Convolution, BatchNorm, ReLU."""
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


def build() -> nn.Sequential:
    """136,618 parameters."""
    return nn.Sequential(
        *block(3, 32), *block(32, 32), nn.MaxPool2d(2),
        *block(32, 64), *block(64, 64), nn.MaxPool2d(2),
        *block(64, 96), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(96 * 16, 10),
    )  # fmt: skip


def main(path: str) -> None:
    """Train with SGD, one cycle, random flips; save in half precision."""
    data = np.load(path)
    x, y = torch.from_numpy(data["x_train"]).permute(0, 3, 1, 2), torch.from_numpy(data["y_train"]).long()
    torch.manual_seed(0)
    net = build().to(memory_format=torch.channels_last)
    steps = EPOCHS * (len(x) // BATCH_SIZE)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, total_steps=steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x))[: steps // EPOCHS * BATCH_SIZE].view(-1, BATCH_SIZE):
            images = x[rows].float() / 255
            images = torch.where(torch.rand(BATCH_SIZE, 1, 1, 1) < 0.5, images.flip(3), images)
            loss = F.cross_entropy(net(images), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    torch.save(net.half().state_dict(), HERE / "net.pt")
    np.savez_compressed(HERE / "images.npz", x=data["x_test"][:300], y=data["y_test"][:300])


if __name__ == "__main__":
    main(sys.argv[1])
