"""A plugin for tests: a backbone and methods whose weights, scores or paths are NaN or infinite."""

from mmc_bench import BackboneSpec, MethodSpec, hookimpl

METHODS = {
    "inf-weight": "return an infinite weight",
    "nan-statistics": "return a running mean of NaN",
    "negative-variance": "return finite weights and NaN scores",
    "cliff": "return a finite model behind an infinitely high barrier",
}


@hookimpl
def register_backbones(register):
    register(BackboneSpec(name="root-net", target=":root_net", summary="a NaN gradient behind a finite loss"))


@hookimpl
def register_methods(register):
    for name, summary in METHODS.items():
        register(MethodSpec(name=name, target=":Diverging", defaults={"behaviour": name}, summary=summary))


def root_net(num_classes, input_shape):
    import torch
    from torch import nn

    class RootNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.num_classes, self.num_features = num_classes, input_shape[0]
            self.root = nn.Parameter(torch.zeros(1))
            self.head = nn.Linear(self.num_features, num_classes)

        def forward_features(self, x):
            return x + 0 * self.root.sqrt()  # 0 times an infinite slope

        def forward_head(self, x, pre_logits=False):
            x = x.mean((2, 3))
            return x if pre_logits else self.head(x)

        def forward(self, x):
            return self.forward_head(self.forward_features(x))

        def get_classifier(self):
            return self.head

    return RootNet()


class Diverging:
    """Does what its name says."""

    def __init__(self, config):
        self.config = config

    def fine_tune(self, task):
        import torch

        with torch.no_grad():
            getattr(self, self.config.behaviour.replace("-", "_"))(task.model)
        return task.model

    def inf_weight(self, model):
        model.head.weight[0, 0] = float("inf")

    def nan_statistics(self, model):
        model.norm.running_mean[0] = float("nan")

    def negative_variance(self, model):
        model.norm.running_var.fill_(-1.0)

    def cliff(self, model):
        """No feature is above 0, so that the last layer's huge weights count for nothing; before, they do."""
        model.norm.weight.zero_()
        model.norm.bias.fill_(-1e-3)
        model.head.weight.zero_()
        model.head.weight[0], model.head.weight[1] = 3e37, -3e37


def _config():
    from typing import Literal

    from mmc_bench import BaseConfig

    class Config(BaseConfig):
        """What to return."""

        behaviour: Literal[tuple(METHODS)] = "inf-weight"

    return Config


Diverging.Config = _config()
