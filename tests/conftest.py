"""Fixtures that several files share: folders of a test's own, a tiny network, image sets, a plain cell."""

import pytest
import torch
from torch import nn

from mmc_bench.cells import Cell, ConnectSettings, DataSettings, PluginRef, Pretraining, Recipe
from mmc_bench.data.splits import CuedImages


@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory, monkeypatch):
    """Keep every test away from the user's data and decoded images."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("MMC_BENCH_CACHE", str(home / "cache"))
    monkeypatch.setenv("MMC_BENCH_DATA", str(home / "data"))


@pytest.fixture(autouse=True, scope="session")
def two_threads():
    torch.set_num_threads(2)


class TinyNet(nn.Module):
    """Two convolutions with BatchNorm, with timm's interface; small enough to be followed by hand."""

    def __init__(self, num_classes=3, channels=2):
        super().__init__()
        self.num_classes, self.num_features = num_classes, 5
        self.stem = nn.Conv2d(channels, 4, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(4)
        self.conv = nn.Conv2d(4, 5, 3, bias=False)
        self.norm2 = nn.BatchNorm2d(5)
        self.head = nn.Linear(5, num_classes)

    def forward_features(self, x):
        return self.norm2(self.conv(self.norm1(self.stem(x)).relu())).relu()

    def forward_head(self, x, pre_logits=False):
        x = x.mean((2, 3))
        return x if pre_logits else self.head(x)

    def forward(self, x):
        return self.forward_head(self.forward_features(x))

    def get_classifier(self):
        return self.head

    def reset_classifier(self, num_classes):
        self.num_classes = num_classes
        self.head = nn.Linear(5, num_classes, dtype=self.head.weight.dtype)


@pytest.fixture
def tiny_net():
    """Return a maker of tiny networks with random weights and BatchNorm statistics."""

    def make(seed=0, dtype=torch.float64):
        torch.manual_seed(seed)
        net = TinyNet().to(dtype)
        for norm in (net.norm1, net.norm2):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias)
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
        return net

    return make


@pytest.fixture
def image_set():
    """Return a maker of sets of `n` random 2x6x6 images of three classes, without cues."""

    def make(n, seed=0, dtype=torch.float64, labels=None):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(3, (n,), generator=generator) if labels is None else torch.tensor(labels)
        images = torch.randn(n, 2, 6, 6, generator=generator, dtype=dtype)
        images += labels[:, None, None, None] * 0.3  # something to learn
        cues = torch.full((n,), -1)
        return CuedImages(images, torch.arange(n), labels, cues, lambda images, cue: images)

    return make


@pytest.fixture
def cell():
    """Return a cell as plain data; its plugins need not exist."""
    pretraining = Pretraining(
        dataset=PluginRef(name="digits-box", distribution="mmc-bench", version="1+abc", parameters={"size": 3}),
        images={"digits": "original"},
        data=DataSettings(clean_images=20, validation_images=20, pretrain_images=100),
        backbone=PluginRef(name="resnet8", distribution="mmc-bench", version="1+def", parameters={"blocks": 1}),
        cue_rate=0.9,
        recipe=Recipe(epochs=2, curve_images=10),
        seed=3,
    )
    method = PluginRef(name="ft", distribution="mmc-bench", version="1+123", parameters={"lr": 0.1})
    return Cell(pretraining=pretraining, method=method, connect=ConnectSettings(points=3, batchnorm_images=10))
