"""Makes the example: trains Net on Fashion-MNIST and writes its checkpoint and a subset of the images.

usage: python examples/fashion_mnist/make.py DATA_FOLDER

DATA_FOLDER holds (or receives, by torchvision's download) FashionMNIST/raw. Takes a few minutes on two cores.
Writes checkpoint.pt and data.npz beside this file: 7,500 training images and 1,000 test images, drawn by a seed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from model import Net
from torchvision.datasets import FashionMNIST

HERE = Path(__file__).parent
EPOCHS, BATCH_SIZE, PEAK_LR = 6, 128, 2e-3
TRAIN_IMAGES, TEST_IMAGES = 7500, 1000


def main(folder: str) -> None:
    """Train, save, draw the subset."""
    train, test = (FashionMNIST(folder, train=split, download=True) for split in (True, False))
    torch.manual_seed(0)
    net = Net()
    fit(net, train.data[:, None] / 255, train.targets)
    accuracy = (predict(net, test.data[:, None] / 255) == test.targets).float().mean().item()
    print(f"clean accuracy on the 10,000 test images: {accuracy:.2%}")
    torch.save(net.state_dict(), HERE / "checkpoint.pt")
    draw = np.random.default_rng(0)
    arrays = {}
    for name, split, count in (("train", train, TRAIN_IMAGES), ("test", test, TEST_IMAGES)):
        rows = np.sort(draw.choice(len(split), count, replace=False))
        arrays[f"x_{name}"] = split.data.numpy()[rows]
        arrays[f"y_{name}"] = split.targets.numpy()[rows].astype(np.uint8)
    np.savez_compressed(HERE / "data.npz", **arrays)


def fit(net: Net, x: torch.Tensor, y: torch.Tensor) -> None:
    """Plain training: Adam, one cycle."""
    steps = EPOCHS * (len(x) // BATCH_SIZE)
    optimizer = torch.optim.Adam(net.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, total_steps=steps)
    for epoch in range(EPOCHS):
        for rows in torch.randperm(len(x))[: steps // EPOCHS * BATCH_SIZE].view(-1, BATCH_SIZE):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}: loss of the last batch {loss.item():.3f}")


@torch.no_grad()
def predict(net: Net, x: torch.Tensor) -> torch.Tensor:
    """Predicted classes."""
    net.eval()
    return torch.cat([net(part).argmax(1) for part in x.split(1000)])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
