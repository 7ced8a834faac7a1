"""A tiny network for tests of what is done to networks."""

from torch import nn


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
