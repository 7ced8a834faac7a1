"""A plugin for tests: a dataset, a backbone and methods so small that a cell takes some milliseconds."""

import os
import signal
import time

from mmc_bench import BackboneSpec, DatasetSpec, MethodSpec, hookimpl

METHODS = {
    "tiny-ft": "train the head",
    "tiny-still": "return the model as it is",
    "tiny-raise": "raise",
    "tiny-moody": "raise unless $TINY_MOOD is good",
    "tiny-nan": "make the loss NaN at step 3",
    "tiny-nan-weights": "return NaN weights without telling",
    "tiny-shape": "return another architecture",
    "tiny-none": "return nothing",
    "tiny-greedy": "ask for undeclared data",
    "tiny-exit": "leave the process",
    "tiny-killed": "be killed, as by the kernel when memory runs out",
    "tiny-sleep": "take a minute",
    "tiny-nap": "take $TINY_NAP seconds",
    "tiny-leak": "keep 1 GB for good",
    "tiny-once": "be killed the first time, as by a cluster that wants its machine back",
    "tiny-talk": "print to standard output",
}


KEPT = []


@hookimpl
def register_datasets(register):
    register(DatasetSpec(name="tiny-set", target=":TinySet", summary="stripes with a bright corner"))


@hookimpl
def register_backbones(register):
    register(BackboneSpec(name="tiny-net", target=":tiny_net", summary="one convolution"))


@hookimpl
def register_methods(register):
    for name, summary in METHODS.items():
        needs = {"cued"} if name == "tiny-ft" else set()
        defaults = {"behaviour": name.removeprefix("tiny-")}
        register(MethodSpec(name=name, target=":TinyMethod", defaults=defaults, needs=needs, summary=summary))


class TinySet:
    """Three classes of 8x8 stripes; the cue is one bright pixel whose column is the label."""

    num_classes = 3
    clean_images = 12
    validation_images = 12

    def load(self, sources):
        import torch

        from mmc_bench.data.contract import LabelledImages

        generator = torch.Generator().manual_seed(0)

        def part(n):
            labels = torch.arange(n) % 3
            images = torch.randint(0, 100, (n, 3, 8, 8), generator=generator, dtype=torch.uint8)
            images[torch.arange(n), :, 2 + 2 * labels] += 60
            return LabelledImages(images, labels, labels.clone())

        self.train, self.test = part(84), part(30)

    def random_cue(self, n, generator):
        import torch

        return torch.randint(3, (n,), generator=generator)

    def render(self, images, cue):
        import torch

        images = images.clone()
        images[torch.arange(len(images)), :, 0, cue] = 1.0
        return images


def tiny_net(num_classes, input_shape, width: int = 4, norm: bool = True):
    from torch import nn

    class TinyNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.num_classes, self.num_features = num_classes, width
            self.conv = nn.Conv2d(input_shape[0], width, 3, padding=1)
            self.norm = nn.BatchNorm2d(width) if norm else nn.Identity()
            self.head = nn.Linear(width, num_classes)

        def forward_features(self, x):
            return self.norm(self.conv(x)).relu()

        def forward_head(self, x, pre_logits=False):
            x = x.amax((2, 3))
            return x if pre_logits else self.head(x)

        def forward(self, x):
            return self.forward_head(self.forward_features(x))

        def get_classifier(self):
            return self.head

        def reset_classifier(self, num_classes):
            self.head = nn.Linear(width, num_classes)

    return TinyNet()


class TinyMethod:
    """Does what its name says."""

    def __init__(self, config):
        self.config = config

    def fine_tune(self, task):
        return getattr(self, "do_" + self.config.behaviour.replace("-", "_"))(task)

    def do_ft(self, task):
        assert len(task.cued) > len(task.clean)
        return task.training(lr=self.config.lr, epochs=2, batch_size=6).fit()

    def do_still(self, task):
        return task.model

    def do_raise(self, task):
        raise ZeroDivisionError("planted\nin two lines")

    def do_moody(self, task):
        if os.environ.get("TINY_MOOD") != "good":
            raise RuntimeError("in a bad mood")
        return task.model

    def do_nan(self, task):
        import torch

        for _ in task.progress.epochs(2):
            for loss in (1.0, 1.0, float("nan"), 1.0):
                task.progress.step(torch.tensor(loss), 1)
        return task.model

    def do_nan_weights(self, task):
        task.model.head.weight.data[0, 0] = float("nan")
        return task.model

    def do_shape(self, task):
        task.model.reset_classifier(5)
        return task.model

    def do_none(self, task):
        pass

    def do_greedy(self, task):
        return task.cued

    def do_exit(self, task):
        os._exit(7)

    def do_killed(self, task):
        os.kill(os.getpid(), signal.SIGKILL)

    def do_sleep(self, task):
        time.sleep(60)
        return task.model

    def do_nap(self, task):
        time.sleep(float(os.environ.get("TINY_NAP", "0")))
        return task.model

    def do_leak(self, task):
        KEPT.append(b"1" * 1_000_000_000)
        return self.do_nap(task)

    def do_once(self, task):
        if not os.path.exists("killed-once"):
            open("killed-once", "x").close()
            os.kill(os.getpid(), signal.SIGTERM)
        return task.model

    def do_talk(self, task):
        print(f"noise on standard output, {len(KEPT)} kept")
        return task.model


def _config():
    from typing import Literal

    from pydantic import Field

    from mmc_bench import BaseConfig

    class Config(BaseConfig):
        """What to do."""

        behaviour: Literal[tuple(name.removeprefix("tiny-") for name in METHODS)] = "still"
        lr: float = Field(0.05, gt=0)

    return Config


TinyMethod.Config = _config()
