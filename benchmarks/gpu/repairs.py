"""Fine-tuning with registered methods: a task for each, and steps that are replayed beside steps that are called."""

import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from mmc_bench.landscape.paths import evaluate_path, linear_path
from mmc_bench.landscape.quadratic import train_bend
from mmc_bench.results.settings import QuadraticSettings
from mmc_bench.training import Progress, Task
from mmc_bench.training.graphs import SWITCH
from mmc_bench.training.precision import arithmetic

from ..speed.cases import Bench

Keep = Callable[[str, Any], None]

#: Methods whose steps are replayed.
REPLAYED = ("ft-medium", "cbft", "ft-sam")

#: By how much the results of two trainings may differ by rounding alone, relative to what training has changed, and
#: losses on a path, where nothing is trained, relative to themselves.
ROUNDING, PATH_ROUNDING = 0.1, 1e-3


def method_of(offer: Any, **wanted: Any) -> Any:
    """Return a method with these parameters, as far as it has them."""
    known = offer.load().Config.model_fields
    return offer.make(offer.configure({key: value for key, value in wanted.items() if key in known}))


def task_of(bench: Bench, offer: Any, n: int, backbone: str = "resnet8") -> Task:
    """Return the repair of a network with n images, a third of which are clean."""
    images = bench.images(n)[0]
    clean, cued = images.first(n // 3), images.subset(slice(n // 3, None))
    return Task(
        model=bench.ours(bench.network(backbone)).train(),
        pretrained=bench.ours(bench.network(backbone)).eval().requires_grad_(False),
        clean=clean,
        validation=clean.first(6),
        num_classes=10,
        device=bench.device,
        generator=bench.generator(),
        progress=Progress(),
        needs=offer.spec.needs if hasattr(offer.spec, "needs") else frozenset(),
        _cued=cued,
        _environments=torch.ones(len(cued), dtype=torch.int64, device=bench.device),
        _fully_cued=cued,
        _untrained=lambda: bench.ours(bench.network(backbone)),
    )


def replays(bench: Bench, tiny: bool, keep: Keep) -> None:
    """Train with steps that are replayed as CUDA graphs and with steps that are called; compare weights and seconds."""
    backbone, n, batch_size, epochs = ("resnet8", 24, 4, 2) if tiny else ("resnet18", 6144, 128, 4)

    def fine_tuned(name: str) -> tuple[list[torch.Tensor], Progress]:
        offer = bench.registry.get("method", name)
        method, task = method_of(offer, batch_size=batch_size, epochs=epochs), task_of(bench, offer, n, backbone)
        model = method.fine_tune(task)
        return [value.detach() for value in model.parameters()], task.progress

    def ends() -> tuple[nn.Module, nn.Module]:
        first, second = (bench.ours(bench.network(backbone)).eval().requires_grad_(False) for _ in range(2))
        with torch.no_grad():
            for value in second.parameters():
                value.mul_(1.05)
        return first, second

    def bend() -> tuple[list[torch.Tensor], Progress]:
        progress = Progress()
        settings = QuadraticSettings(epochs=epochs, batch_size=batch_size)
        return train_bend(*ends(), bench.images(n // 3)[0], settings, bench.generator(), progress), progress

    def path() -> tuple[list[torch.Tensor], Progress]:
        (first, second), images, progress = ends(), bench.images(n // 3)[0], Progress()
        unknown: Any = ({"NC": None}, {"NC": None})
        found = evaluate_path(linear_path(first, second), second, {"NC": images}, images, 12, unknown, progress)[1]
        return [torch.tensor([score.loss for score in found["NC"][1:-1]])], progress

    cases: dict[str, Callable[[], tuple[list[torch.Tensor], Progress]]]
    cases = {name: lambda name=name: fine_tuned(name) for name in REPLAYED}  # type: ignore[misc]
    for name, case in (cases | {"bend": bend, "path": path}).items():
        try:
            before = linear_path(*ends())(0.5 if name == "bend" else 0.0)
            keep(name, _compared(bench, case, before, PATH_ROUNDING if name == "path" else ROUNDING))
        except Exception as error:  # the other cases are tried all the same
            traceback.print_exc()
            keep(name, {"error": f"{type(error).__name__}: {error}"})


def _compared(
    bench: Bench,
    case: Callable[[], tuple[list[torch.Tensor], Progress]],
    before: Sequence[torch.Tensor],
    rounding: float = ROUNDING,
) -> dict[str, Any]:
    """Return the seconds of both ways and by how much their results differ, as an error where that is no rounding."""
    ways, seconds, progress = {}, {}, Progress()
    for way in ("called", "replayed", "called again"):
        with _steps(way == "replayed"), arithmetic(bench.precision, bench.device):
            torch.manual_seed(0)
            start = time.perf_counter()
            ways[way], found = case()
            if bench.device.type == "cuda":
                torch.cuda.synchronize()
            seconds[way] = time.perf_counter() - start
            progress = found if way == "replayed" else progress
    start_of = before if len(before) == len(ways["called"]) else [torch.zeros_like(one) for one in ways["called"]]
    moved = _distance(ways["called"], start_of)
    of_replays, of_rounding = (_distance(ways["called"], ways[way]) / moved for way in ("replayed", "called again"))
    row = {"seconds": seconds, "difference": of_replays, "difference of the same": of_rounding}
    row |= {"replayed": progress.is_replayed, "why_not": progress.why_not_replayed}
    if bench.device.type == "cuda" and not progress.is_replayed:
        row["error"] = "nothing was replayed"
    elif of_replays > max(rounding, 3 * of_rounding):
        row["error"] = "replayed steps compute something else"
    return row


def _distance(values: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> float:
    return float(torch.stack([(a - b).float().norm() for a, b in zip(values, others, strict=True)]).norm())


@contextmanager
def _steps(replayed: bool) -> Iterator[None]:
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = "0" if replayed else "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[SWITCH]
        else:
            os.environ[SWITCH] = before
