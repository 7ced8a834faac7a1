"""Training on a stand-in for Apple's GPU; `tests/test_apple.py` runs these tests in a process of their own."""

import copy

import pytest
import torch

from helpers.pretended_gpu import NAME
from mmc_bench.plugin.registry import Registry
from mmc_bench.running import devices
from mmc_bench.training import Progress, Task


@pytest.fixture(scope="module")
def registry():
    return Registry.discover()


METHODS = ("afr", "cbft", "dfr", "eiil", "erm-class-balanced", "fine-pruning", "groupdro", "lff", "lisa", "spare")


@pytest.mark.parametrize("name", METHODS)
def test_methods_train_there_without_float64(registry, apple, tiny_net, image_set, name):
    images = apple(image_set(24, dtype=torch.float32))
    clean, cued = images.first(8), images.subset(slice(8, None))
    offer = registry.get("method", name)
    wanted = {"batch_size": 4, "epochs": 1}
    known = offer.load().Config.model_fields
    method = offer.make(offer.configure({key: value for key, value in wanted.items() if key in known}))
    net = tiny_net(0, torch.float32).to(NAME)
    task = Task(
        model=copy.deepcopy(net).train(),
        pretrained=copy.deepcopy(net).eval().requires_grad_(False),
        clean=clean,
        validation=clean.first(6),
        num_classes=3,
        device=torch.device(NAME),
        generator=torch.Generator().manual_seed(0),
        progress=Progress(),
        needs=frozenset({"cued", "environments", "fully-cued"}),
        _cued=cued,
        _environments=torch.ones(len(cued), dtype=torch.int64, device=NAME),
        _fully_cued=cued,
    )
    model = method.fine_tune(task)
    changed = [not torch.equal(old.cpu(), new.cpu()) for old, new in zip(net.parameters(), model.parameters())]
    assert any(changed) and all(value.device.type == NAME for value in model.state_dict().values())


def test_a_whole_cell_runs_there(apple, bench, monkeypatch):
    waits = []
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waits.append("wait"))
    monkeypatch.setattr(devices, "_check_other", lambda name: None)  # which names are there
    selected = ("--suite", "tiny.yaml", "--seeds", 0, "--methods", "tiny-ft")
    result = bench("run", *selected, "--workers", 0, "--device", NAME)
    assert result.code == 0, result.err
    assert f"on {NAME} in fp32" in result.err and waits
