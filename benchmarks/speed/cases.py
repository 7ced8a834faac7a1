"""The cases: what is measured, ours beside the plain implementation, on identical images and step counts."""

import copy
import itertools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from mmc_bench.data.contract import SourceImages
from mmc_bench.data.cued_images import CuedImages
from mmc_bench.landscape.alignment.activations import CHUNK, Observer, joint_moments, match_activations
from mmc_bench.landscape.paths import evaluate_path, linear_path
from mmc_bench.plugin.registry import Registry
from mmc_bench.training import Backbone, Progress, Task, Training, evaluate, linear_probe
from mmc_bench.training.precision import arithmetic, cross_entropy, full_precision

from . import plain, plain_matching

#: A difference of `parity` beyond which there is nothing to compare, and one that rounding to bf16 does not explain:
#: its step at 1. Of ResNet-18 on a CPU it is a third of that at most.
FP32_OUTPUT, BF16_LOSS = 1e-4, 2**-7

Runs = dict[str, Callable[[], object]]


@dataclass(frozen=True)
class Case:
    """One comparison: its name, what it is, and what is run for ours, R1 and (where it says something) R2.

    `notes` returns what the runs tell besides their times.
    """

    name: str
    what: str
    runs: Runs
    notes: Callable[[], dict[str, Any]] = dict


class Bench:
    """Images and networks, the same for ours and for the plain loops.

    Parameters
    ----------
    device, precision
        Where, and in which arithmetic, ours computes. R2 is compared with in bf16 alone: where ours uses float32, the
        processor may have to emulate bfloat16, which takes minutes.
    """

    def __init__(self, device: torch.device, precision: str) -> None:
        self.device, self.precision = device, precision
        self.registry = Registry.discover()
        self.r1 = plain.Mode(device)
        self.r2 = plain.Mode(device, bf16=True) if precision == "bf16" else None
        boxes = self.registry.get("dataset", "cifar10-box")
        self._boxes = boxes.make(boxes.configure({}))
        self._boxes.load(_OneOfEachClass())

    def network(self, name: str, num_classes: int = 10) -> Backbone:
        """Return a backbone with random weights, the same at every call."""
        torch.manual_seed(0)
        offer = self.registry.get("backbone", name)
        builder: Callable[..., Backbone] = offer.load()
        return builder(num_classes=num_classes, input_shape=(3, 32, 32), **offer.spec.defaults)

    def ours(self, model: Backbone) -> Backbone:
        """Return a copy of a model as our stages place it."""
        return copy.deepcopy(model).to(self.device).to(memory_format=torch.channels_last)

    def images(self, n: int, num_classes: int = 10, seed: int = 0) -> tuple[CuedImages, plain.BoxImages]:
        """Return the same `n` random images with boxes, for ours and for the plain loops."""
        generator = np.random.default_rng(seed)
        pixels = generator.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
        labels = generator.integers(0, num_classes, n)
        places = labels % 10
        set_of_ours = CuedImages(
            torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self.device),  # channels_last, as the splits are
            torch.arange(n, device=self.device),
            torch.from_numpy(labels).to(self.device),
            torch.from_numpy(places).to(self.device),
            self._boxes.render,
        )
        return set_of_ours, plain.BoxImages(pixels, labels, places)

    def generator(self) -> torch.Generator:
        """Return a fresh generator on the device."""
        return torch.Generator(device=self.device).manual_seed(0)

    def training(
        self, model: nn.Module, images: CuedImages, epochs: int, batch_size: int, progress: Progress | None = None
    ) -> Training[nn.Module]:
        """Return a training with our SGD, at a learning rate of .01 that falls to 0 as a cosine."""
        return Training(
            model,
            images,
            lr=0.01,
            epochs=epochs,
            batch_size=batch_size,
            generator=self.generator(),
            progress=progress or Progress(),
        )


class _OneOfEachClass:
    """An image source that tells a dataset no more than the images' size and the number of classes."""

    def load(self, name: str) -> tuple[SourceImages, SourceImages]:
        part = SourceImages(torch.zeros(10, 3, 32, 32, dtype=torch.uint8), torch.arange(10))
        return part, part


def pretraining_step(bench: Bench, steps: int | None = None, batch_size: int = 128) -> Case:
    """C1: steps of ResNet-18 pretraining.

    On a GPU a run is the next 100 steps, rather than 2 steps on their own, of a training that is long enough to be
    compiled. The warm-up compiles it.
    """
    on_gpu = bench.device.type == "cuda"
    steps = steps or (100 if on_gpu else 2)
    network = bench.network("resnet18")
    ours, theirs = bench.images(steps * batch_size)
    model = bench.ours(network).train()
    progress = Progress()
    long = bench.training(model, ours, 10**6, batch_size, progress)
    batches = long.batches()

    def run_ours() -> None:
        with arithmetic(bench.precision, bench.device):
            if not on_gpu:
                bench.training(model, ours, 1, batch_size).fit()
                return
            for x, y in itertools.islice(batches, steps):
                long.minimise(cross_entropy(long.logits(x), y))

    runs: Runs = {"ours": run_ours}
    for name, mode in (("R1", bench.r1), ("R2", bench.r2)):
        if mode is not None:
            runs[name] = partial(plain.train, mode.model(network), theirs, batch_size, 0.01, mode)
    what = f"ResNet-18 pretraining, {steps} steps of {batch_size} images"
    return Case("C1", what, runs, lambda: {"compilation": asdict(progress.compiler)} if on_gpu else {})


def last_layer(bench: Bench, n: int = 250, epochs: int = 100) -> Case:
    """C2: last-layer retraining."""
    network = bench.network("resnet8")
    ours, theirs = bench.images(n)

    def run_ours() -> None:
        with arithmetic(bench.precision, bench.device):
            linear_probe(
                bench.ours(network),
                ours,
                epochs=epochs,
                lr=30.0,
                batch_size=256,
                generator=bench.generator(),
                progress=Progress(),
            )

    return Case(
        "C2",
        f"last-layer retraining of ResNet-8, {n} images, {epochs} epochs",
        {
            "ours": run_ours,
            "R1": lambda: plain.retrain_last_layer(bench.r1.model(network), theirs, epochs, 30.0, 256, bench.r1),
        },
    )


def path(bench: Bench, bn_images: int = 1000, test_images: int = 500, points: int = 4) -> Case:
    """C3: a path's inner points on four splits."""
    start, end = bench.network("resnet8"), bench.network("resnet8")
    with torch.no_grad():
        for parameter in end.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    bn_ours, bn_theirs = bench.images(bn_images, seed=1)
    sets = {name: bench.images(test_images, seed=2 + i) for i, name in enumerate(("NC", "C", "RC", "RI"))}
    splits = {name: pair[0] for name, pair in sets.items()}
    ours = bench.ours(start), bench.ours(end)
    theirs = bench.r1.model(start), bench.r1.model(end)
    scores = evaluate(ours[0], splits["NC"])
    known = dict.fromkeys(splits, scores)
    ts = [index / (points - 1) for index in range(1, points - 1)]

    def run_ours() -> None:
        with arithmetic(bench.precision, bench.device):
            evaluate_path(linear_path(*ours), ours[1], splits, bn_ours, points, (known, known))

    def run_plain() -> None:
        plain.evaluate_path(*theirs, bn_theirs, {name: pair[1] for name, pair in sets.items()}, ts, bench.r1)

    return Case(
        "C3",
        f"{points - 2} inner points of a ResNet-8 path, {bn_images} BatchNorm and 4 x {test_images} test images",
        {"ours": run_ours, "R1": run_plain},
    )


def matching(bench: Bench, n: int = 128) -> Case:
    """C4: matching the units of two networks by their activations; tracing the network is not part of it."""
    model, reference = (bench.ours(bench.network("vgg13")).eval() for _ in range(2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * parameter.std() * torch.randn_like(parameter))
    images, _ = bench.images(n)
    x, _ = images.batch(slice(None))
    observer = Observer(reference, x[:CHUNK])
    found: dict[str, list[torch.Tensor]] = {}

    def run_ours() -> None:
        with full_precision(bench.device):
            moments = joint_moments(reference, model, observer, [x])
        found["ours"] = list(match_activations(observer.groups, moments.correlation).values())

    def run_plain() -> None:
        with full_precision(bench.device):
            found["R1"] = plain_matching.match(model, reference, x)
        if any(not torch.equal(ours, theirs) for ours, theirs in zip(found["ours"], found["R1"], strict=True)):
            raise RuntimeError("one pass and layer by layer found different assignments")

    return Case(
        "C4", f"matching the units of two VGG-13s on {n} images, in one pass", {"ours": run_ours, "R1": run_plain}
    )


def cbft_step(bench: Bench, batch_size: int = 64, num_classes: int = 100) -> Case:
    """C5: CBFT's two steps on 100 classes; the second epoch is the first with the invariance term."""
    network = bench.network("resnet18", num_classes)
    clean_ours, clean_theirs = bench.images(batch_size, num_classes, seed=1)
    cued_ours, cued_theirs = bench.images(2 * batch_size, num_classes, seed=2)
    offer = bench.registry.get("method", "cbft")
    method = offer.make(offer.configure({"epochs": 2, "batch_size": batch_size}))

    def run_ours() -> None:
        task = Task(
            model=bench.ours(network).train(),
            pretrained=bench.ours(network).eval().requires_grad_(False),
            clean=clean_ours,
            validation=clean_ours,
            num_classes=num_classes,
            device=bench.device,
            generator=bench.generator(),
            progress=Progress(),
            needs=frozenset({"fully-cued"}),
            _fully_cued=cued_ours,
        )
        with arithmetic(bench.precision, bench.device):
            method.fine_tune(task)

    def run_plain() -> None:
        plain.cbft(
            bench.r1.model(network),
            bench.r1.model(network).eval(),
            cued_theirs,
            clean_theirs,
            2,
            batch_size,
            num_classes,
            bench.r1,
        )

    return Case(
        "C5", f"CBFT on ResNet-18, 2 steps of {batch_size} images, 100 classes", {"ours": run_ours, "R1": run_plain}
    )


def cued_images(bench: Bench, n: int = 10_000, batch_size: int = 128) -> Case:
    """C6: cued images through the loader."""
    ours, theirs = bench.images(n)

    def run_ours() -> None:
        for x, _ in ours.shuffled(batch_size, bench.generator()):
            last = x
        last.sum().item()

    def run_plain() -> None:
        for batch in plain.loader(theirs, batch_size):
            last, _ = bench.r1.placed(batch)
        last.sum().item()

    return Case("C6", f"{n:,} cued images through the loader", {"ours": run_ours, "R1": run_plain})


CASES: dict[str, Callable[[Bench], Case]] = {
    "C1": pretraining_step,
    "C2": last_layer,
    "C3": path,
    "C4": matching,
    "C5": cbft_step,
    "C6": cued_images,
}


def parity(bench: Bench, backbone: str = "resnet18", batch_size: int = 32) -> dict[str, float]:
    """Compare what is computed before how fast: outputs in float32, and the loss after a step in bf16.

    Returns
    -------
    dict
        ``fp32_output``: largest difference between our logits and the plain ones, relative to the largest
        logit. ``bf16_loss``, where ours uses bf16: relative difference of the loss on a batch after a step on it from
        that in float32. More steps would enlarge the rounding of the first.
    """
    network = bench.network(backbone)
    ours, theirs = bench.images(batch_size)
    x, _ = ours.batch(slice(None))
    plain_x = torch.stack([theirs[index][0] for index in range(len(theirs))]).to(bench.device)
    with torch.inference_mode(), full_precision(bench.device):
        logits = bench.ours(network).eval()(x)
        plain_logits = bench.r1.model(network).eval()(plain_x)
        output = (logits - plain_logits).abs().max() / plain_logits.abs().max()
    checks = {"fp32_output": output.item()}
    if bench.precision == "fp32":
        return checks
    losses = []
    for precision in ("fp32", bench.precision):
        model = bench.ours(network)
        with arithmetic(precision, bench.device):
            bench.training(model, ours, 1, batch_size).fit()
        with torch.no_grad(), full_precision(bench.device):  # batch statistics: the running ones lag behind
            losses.append(cross_entropy(model(x), ours.labels).item())
    return {**checks, "bf16_loss": abs(losses[1] - losses[0]) / losses[0]}
