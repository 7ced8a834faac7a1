"""A plugin for tests: networks and a method that need much memory, in a worker that has little."""

import os
import resource

from mmc_bench import BackboneSpec, MethodSpec, hookimpl


@hookimpl
def register_backbones(register):
    register(BackboneSpec(name="deep-net", target=":deep_net", summary="many layers", defaults={"norm": False}))
    register(BackboneSpec(name="deep-norm-net", target=":deep_net", summary="and BatchNorm", defaults={"norm": True}))


@hookimpl
def register_methods(register):
    register(MethodSpec(name="hungry", target=":Hungry", summary="ask for more memory than there is"))


def leave_free(megabytes):
    """Let this process have so much more memory than it holds by now, from the first call on."""
    import torch

    if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        torch.optim.SGD([torch.zeros(1)])  # what torch imports with its first optimiser is not meant
        with open("/proc/self/statm") as file:
            held = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + megabytes * 2**20, resource.RLIM_INFINITY))


def deep_net(num_classes, input_shape, norm: bool = False, width: int = 256, depth: int = 24):
    import torch
    from torch import nn

    class DeepNet(nn.Module):
        """Layers that keep what they put out: 4 · 64 · width bytes an image each."""

        def __init__(self):
            super().__init__()
            self.num_classes, self.num_features = num_classes, width
            self.scale = nn.Parameter(torch.randn(width, 1, 1))  # no convolution: oneDNN's own needs would blur it
            self.norm = nn.BatchNorm2d(width) if norm else nn.Identity()
            self.layers = nn.Sequential(*[nn.LeakyReLU(0.9) for _ in range(depth)])
            self.head = nn.Linear(width, num_classes)

        def forward_features(self, x):
            return self.layers(self.norm(x.mean(1, keepdim=True) * self.scale))

        def forward_head(self, x, pre_logits=False):
            x = x.mean((2, 3))
            return x if pre_logits else self.head(x)

        def forward(self, x):
            return self.forward_head(self.forward_features(x))

        def get_classifier(self):
            return self.head

        def reset_classifier(self, num_classes):
            self.head = nn.Linear(width, num_classes)

    if megabytes := os.environ.get("HUNGRY_MEGABYTES"):
        leave_free(int(megabytes))
    return DeepNet()


class Hungry:
    """Asks for a pebibyte, unless batches are in at least `parts` parts."""

    def __init__(self, config):
        self.config = config

    def fine_tune(self, task):
        import torch

        from mmc_bench.data.micro_batches import micro_batches

        print(f"hungry in {micro_batches()}")
        if micro_batches() < self.config.parts:
            torch.empty(2**50, dtype=torch.uint8)
        if self.config.then_raise:
            raise ZeroDivisionError("planted")
        return task.model


def _config():
    from mmc_bench import BaseConfig

    class Config(BaseConfig):
        """When to stop asking, and what to do then."""

        parts: int = 1000
        then_raise: bool = False

    return Config


Hungry.Config = _config()
