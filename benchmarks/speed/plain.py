"""The plain implementation that ours is measured against.

A well-written torchvision and DataLoader loop, organised as the authors' code is: the cue drawn image by image,
the frozen backbone run again in every epoch of last-layer retraining, BatchNorm re-estimated for every split,
loops over classes in CBFT, the loss read every step. `Mode` R1 computes in float32 as it comes; R2 adds bfloat16
autocast and channels_last to the very same loops.
"""

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from mmc_bench.training import Backbone

Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Mode:
    """Arithmetic and memory layout of the plain loops."""

    device: torch.device
    bf16: bool = False

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context of a forward pass."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)

    def placed(self, batch: Batch) -> Batch:
        """Return a batch on the device, in the mode's layout."""
        x, y = batch[0].to(self.device), batch[1].to(self.device)
        return (x.contiguous(memory_format=torch.channels_last) if self.bf16 else x), y

    def model(self, model: Backbone) -> Backbone:
        """Return a copy of a model on the device, in the mode's layout."""
        layout = torch.channels_last if self.bf16 else torch.contiguous_format
        return copy.deepcopy(model).to(self.device).to(memory_format=layout)


class BoxImages(Dataset[tuple[torch.Tensor, int]]):
    """Images with a 3x3 box each, decoded, scaled and drawn one by one.

    Parameters
    ----------
    images
        uint8, (N, H, W, 3).
    labels
        (N,).
    places
        (N,): the box's place on the 3x3 grid, row by row; 9 or negative for no box.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, places: np.ndarray) -> None:
        self.images, self.labels, self.places = images, labels, places
        self.transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = self.transform(Image.fromarray(self.images[index]))
        place = int(self.places[index])
        if 0 <= place < 9:
            side = image.shape[-1]
            starts = (0, (side - 3) // 2, side - 3)
            row, column = starts[place // 3], starts[place % 3]
            image[:, row : row + 3, column : column + 3] = torch.tensor([0.0, 1.0, 0.0])[:, None, None]
        return image, int(self.labels[index])


def loader(images: BoxImages, batch_size: int, shuffle: bool = True) -> DataLoader[tuple[torch.Tensor, int]]:
    """Return the DataLoader of every plain loop; it works in this process, so that all cores compute."""
    return DataLoader(images, batch_size=batch_size, shuffle=shuffle)


def train(model: nn.Module, images: BoxImages, batch_size: int, lr: float, mode: Mode) -> float:
    """Train for one epoch and return the mean loss."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4)
    model.train()
    total = correct = seen = 0.0
    for batch in loader(images, batch_size):
        x, y = mode.placed(batch)
        optimizer.zero_grad()
        with mode.autocast():
            logits = model(x)
            loss = F.cross_entropy(logits.float(), y)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(y)
        correct += (logits.argmax(1) == y).sum().item()
        seen += len(y)
    return total / seen


def retrain_last_layer(
    model: Backbone, images: BoxImages, epochs: int, lr: float, batch_size: int, mode: Mode
) -> Backbone:
    """Train a new last layer; the frozen backbone sees every image again in every epoch."""
    model.eval()
    old = model.get_classifier()
    layer = nn.Linear(old.in_features, old.out_features).to(mode.device)
    optimizer = torch.optim.SGD(layer.parameters(), lr=lr, momentum=0.9)
    steps = epochs * len(loader(images, batch_size))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        for batch in loader(images, batch_size):
            x, y = mode.placed(batch)
            with torch.no_grad(), mode.autocast():
                features = model.forward_head(model.forward_features(x), pre_logits=True)
            loss = F.cross_entropy(layer(features.float()), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            loss.item()
    old.load_state_dict(layer.state_dict())
    return model


def evaluate_path(
    start: Backbone, end: Backbone, bn_images: BoxImages, splits: dict[str, BoxImages], ts: list[float], mode: Mode
) -> dict[str, list[float]]:
    """Return the accuracy of every split at inner points; BatchNorm is re-estimated for each split anew."""
    accuracy: dict[str, list[float]] = {name: [] for name in splits}
    for t in ts:
        for name, split in splits.items():
            between = mode.model(end)
            with torch.no_grad():
                ends = zip(between.parameters(), start.parameters(), end.parameters(), strict=True)
                for parameter, first, last in ends:
                    parameter.copy_((1 - t) * first + t * last)
                for module in between.modules():
                    if isinstance(module, nn.BatchNorm2d):
                        module.reset_running_stats()
                        module.momentum = None
                between.train()
                for batch in loader(bn_images, 250, shuffle=False):
                    x, _ = mode.placed(batch)
                    with mode.autocast():
                        between(x)
                between.eval()
                correct = 0
                for batch in loader(split, 250, shuffle=False):
                    x, y = mode.placed(batch)
                    with mode.autocast():
                        correct += int((between(x).argmax(1) == y).sum().item())
            accuracy[name].append(correct / len(split))
    return accuracy


def cbft(
    model: Backbone,
    pretrained: Backbone,
    cued: BoxImages,
    clean: BoxImages,
    epochs: int,
    batch_size: int,
    num_classes: int,
    mode: Mode,
) -> nn.Module:
    """Connectivity-based fine-tuning with an interpolated copy of the network and loops over the classes."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    between = mode.model(model).train()
    model.train()
    for epoch in range(epochs):
        for nc, c in zip(loader(clean, batch_size), _endless(cued, batch_size), strict=False):
            (x_nc, y_nc), (x_c, y_c) = mode.placed(nc), mode.placed(c)
            t = 0.5 + 0.5 * torch.randn(1).clip(-0.5, 0.5).item()
            with torch.no_grad():
                for p, q, r in zip(between.parameters(), model.parameters(), pretrained.parameters(), strict=True):
                    p.copy_((1 - t) * q + t * r)
            between.zero_grad()
            with mode.autocast():
                loss = (1.0 - F.cross_entropy(between(x_c).float(), y_c)).abs()
            loss.backward()
            for q, p in zip(model.parameters(), between.parameters(), strict=True):
                assert p.grad is not None
                q.grad = (1 - t) * p.grad
            optimizer.step()
            loss.item()
            model.zero_grad()
            with mode.autocast():
                z_nc = _features(model, x_nc)
                loss = F.cross_entropy(model.get_classifier()(z_nc).float(), y_nc)
                if epoch > 0:
                    loss = loss + _invariance(_features(model, x_c), y_c, z_nc, y_nc, num_classes)
            loss.backward()
            optimizer.step()
            loss.item()
    return model


def _features(model: Backbone, x: torch.Tensor) -> torch.Tensor:
    features: torch.Tensor = model.forward_head(model.forward_features(x), pre_logits=True)
    return features.float()


def _invariance(
    z_c: torch.Tensor, y_c: torch.Tensor, z_nc: torch.Tensor, y_nc: torch.Tensor, num_classes: int
) -> torch.Tensor:
    total = torch.zeros((), device=z_c.device)
    for k in range(num_classes):
        of_c, of_nc = (y_c == k).nonzero()[:, 0], (y_nc == k).nonzero()[:, 0]
        if len(of_c) and len(of_nc):
            gap = F.normalize(z_c[of_c].mean(0), dim=0) - F.normalize(z_nc[of_nc].mean(0), dim=0)
            total = total + gap.norm().pow(2)
    return total / num_classes


def _endless(images: BoxImages, batch_size: int) -> Iterator[Batch]:
    while True:
        yield from loader(images, batch_size)
