"""Tasks with a clean and a cued set in one storage, and SGD written out, for tests of methods that train on both."""

import copy
import math
from dataclasses import replace

import torch

from mmc_bench.plugin.registry import Registry
from mmc_bench.training import Progress, Task

CLEAN, CUED, CLASSES = 11, 14, 3
HAS_CUE = [1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1]


def make_method(name, **parameters):
    offer = Registry.discover().get("method", name)
    return offer.make(offer.configure(parameters))


def pooled_task(tiny_net, image_set, dtype=torch.float64, **replaced):
    """Return a task on tiny data for makers of networks and image sets; both generators start at seed 7."""
    pretrained = tiny_net(1, dtype).eval().requires_grad_(False)
    images = image_set(CLEAN + CUED, 1, dtype)
    images = replace(images, cues=torch.tensor([-1] * CLEAN + [e - 1 for e in HAS_CUE]))  # code 0 is a cue
    torch.manual_seed(7)
    task = {
        "model": copy.deepcopy(pretrained).train().requires_grad_(True),
        "pretrained": pretrained,
        "clean": images.first(CLEAN),
        "validation": image_set(5, 2, dtype),
        "num_classes": CLASSES,
        "device": torch.device("cpu"),
        "generator": torch.Generator().manual_seed(7),
        "progress": Progress(),
        "needs": frozenset({"cued", "environments"}),
        "_cued": images.subset(slice(CLEAN, None)),
        "_environments": torch.tensor(HAS_CUE),
    }
    return Task(**{**task, **replaced})


class WrittenOutSGD:
    """SGD with momentum .9 on a cosine, each step's learning rate written out."""

    def __init__(self, model, lr, steps, weight_decay=1e-4):
        self.parameters, self.lr, self.steps, self.done = list(model.parameters()), lr, steps, 0
        self.weight_decay = weight_decay
        self.velocities = [torch.zeros_like(p) for p in self.parameters]

    def minimise(self, loss):
        gradients = torch.autograd.grad(loss, self.parameters)
        lr = self.lr * (1 + math.cos(math.pi * self.done / self.steps)) / 2
        with torch.no_grad():
            for p, v, g in zip(self.parameters, self.velocities, gradients, strict=True):
                v.mul_(0.9).add_(g + self.weight_decay * p)
                p.sub_(lr * v)
        self.done += 1


def batches_without_end(n, batch_size, generator):
    """Yield rows of a set of n images, epoch after epoch, each in a new order; a batch of one image is left out."""
    while True:
        order = torch.randperm(n, generator=generator).tolist()
        parts = [order[start : start + batch_size] for start in range(0, n, batch_size)]
        yield from (part for part in parts if len(part) > 1)


def pairs_of_rows(epochs, batch_size, generator):
    """Yield a clean and a cued batch's rows for each step of all epochs, as lists."""
    cued = batches_without_end(CUED, batch_size, generator)
    for _ in range(epochs):
        order = torch.randperm(CLEAN, generator=generator).tolist()
        for start in range(0, CLEAN, batch_size):
            if len(order[start : start + batch_size]) > 1:
                yield order[start : start + batch_size], next(cued)


def assert_same_state(model, expected, tolerance=1e-9):
    states = model.state_dict(), expected.state_dict()
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.allclose(value, states[1][name], rtol=tolerance, atol=tolerance), name


def paired_rows(epochs, batch_size, chances, generator):
    """Yield each step's rows of the pool: a clean batch, and as many cued images drawn by their chances."""
    for _ in range(epochs):
        order = torch.randperm(CLEAN, generator=generator).tolist()
        for start in range(0, CLEAN, batch_size):
            clean = order[start : start + batch_size]
            drawn = torch.multinomial(torch.tensor(chances).double(), len(clean), replacement=True, generator=generator)
            yield clean + [CLEAN + row for row in drawn.tolist()]
