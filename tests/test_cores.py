"""How many cores a process may use: those of its affinity, and of its container's quota."""

import pytest

from mmc_bench.system import processes
from mmc_bench.system.processes import available_cores, container_quota


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n"}, None),
        ({}, None),
    ],
)
def test_a_container_s_quota_is_read_from_its_control_groups(tmp_path, files, cores):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert container_quota(tmp_path) == cores


@pytest.mark.parametrize(("quota", "cores"), [(None, 8), (0.5, 1), (2.5, 3), (64.0, 8)])
def test_the_cores_of_a_quota_are_rounded_up_and_no_more_than_there_are(monkeypatch, quota, cores):
    monkeypatch.setattr(processes.os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(processes, "container_quota", lambda: quota)
    assert available_cores() == cores
