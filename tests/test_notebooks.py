"""The API in a live Jupyter kernel: methods from cells, progress, interrupting, and the notebook that is shipped."""

import asyncio
import os
import time
from pathlib import Path

import nbclient
import nbformat
import psutil
import pytest
from nbclient.exceptions import CellExecutionError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]

METHOD = """
class Nudge:
    needs = {"cued"}

    def fine_tune(self, task):
        assert len(task.cued)
        task.model.head.bias.data += AMOUNT
        return task.model
"""
RUN = 'results = mmc_bench.run("tiny.yaml", methods=["tiny-still", Nudge], seeds=0, workers=2)\nresults'
NAPPING = """
import os, time

class Nap:
    def fine_tune(self, task):
        while not os.path.exists("open"):
            time.sleep(0.05)
        return task.model

mmc_bench.run("tiny.yaml", methods=["tiny-still", Nap], seeds=0, workers=2)
"""

#: Parts of the shipped notebook, and what is run in their place: it is not about how long a model trains.
SIZES = '"pretrain.epochs": 1, "data.pretrain_images": 200'
SHORTER = {
    'mmc_bench.task("digits-box", seed=0)': f'mmc_bench.task("digits-box", seed=0, set={{{SIZES}}})',
    '"connect.points": 5}': f'"connect.points": 5, "ft-medium.epochs": 1, {SIZES}}}',
    "epochs: int = 20": "epochs: int = 1",
}


@pytest.fixture
def kernel(bench, monkeypatch):
    """Return what executes cells, one after another, in one kernel, and returns the last one's outputs."""
    monkeypatch.setenv("MMC_BENCH_PLUGINS", str(Path(__file__).parent / "plugins"))
    monkeypatch.setenv("IPYTHONDIR", str(bench.folder / "ipython"))
    notebook = nbformat.v4.new_notebook()
    client = nbclient.NotebookClient(
        notebook, timeout=240, allow_errors=False, resources={"metadata": {"path": str(bench.folder)}}
    )

    def execute(*sources):
        for source in sources:
            notebook.cells.append(nbformat.v4.new_code_cell(source))
            client.execute_cell(notebook.cells[-1], len(notebook.cells) - 1)
        return notebook.cells[-1].outputs

    with client.setup_kernel():
        execute("import mmc_bench")
        execute.client = client
        yield execute


def shown(outputs):
    """Return all that outputs show, as one text."""
    parts = [output.get("data", {}) for output in outputs]
    texts = [data.get("text/html", data.get("text/plain", "")) for data in parts]
    return "\n".join(texts + [output.get("text", "") for output in outputs])


def test_a_class_from_a_cell_runs_in_two_workers_and_anew_when_it_changes(kernel):
    first = shown(kernel("AMOUNT = 0.5", METHOD, RUN))
    assert "2 cells: 2 computed, 0 cached" in first and "<td>nudge</td>" in first
    assert "2 cells: 0 computed, 2 cached" in shown(kernel(METHOD, RUN))
    at_once = RUN.replace("workers=2", "workers=0")
    assert "2 cells: 1 computed, 1 cached" in shown(kernel("AMOUNT = 1.5", at_once))
    assert "2 cells: 1 computed, 1 cached" in shown(kernel("AMOUNT = 0.5", METHOD.replace("+=", "-="), at_once))
    assert "2 cells: 0 computed, 2 cached" in shown(kernel(METHOD, RUN))
    frame = shown(kernel('print(sorted(results.to_frame()["method"]))'))
    assert "['nudge', 'tiny-still']" in frame


def test_a_config_without_functions_that_is_edited_and_restored_is_told_apart(kernel):
    """Such a class does not say which cell it is from: the history of the kernel does."""
    config = "class Config(mmc_bench.BaseConfig):\n    amount: float = 1.0"
    method = (
        "class Nudge:\n    Config = Config\n    def __init__(self, config): self.config = config\n"
        "    def fine_tune(self, task):\n        task.model.head.bias.data += self.config.amount\n"
        "        return task.model"
    )
    digest = "from mmc_bench.plugin.in_memory import method_offer\nprint(method_offer(Nudge).digest)"
    digests = [shown(kernel(cell, method, digest)) for cell in (config, config.replace("1.0", "2.0"), config)]
    assert digests[0] == digests[2] != digests[1]


def test_an_error_is_a_sentence_and_the_kernel_lives(kernel):
    with pytest.raises(CellExecutionError, match="unknown method 'tiny-stil': did you mean tiny-still"):
        kernel('mmc_bench.run("tiny.yaml", methods="tiny-stil")')
    assert "alive" in shown(kernel("print('alive')"))


def test_interrupting_keeps_what_is_finished_and_leaves_no_worker(kernel, bench):
    client = kernel.client
    pid = int(shown(kernel("import os; print(os.getpid())")))

    client.nb.cells.append(nbformat.v4.new_code_cell(NAPPING))

    async def interrupted():
        cell, place = client.nb.cells[-1], len(client.nb.cells) - 1
        running = asyncio.ensure_future(client.async_execute_cell(cell, place))
        end = time.monotonic() + 120
        while not list(bench.folder.glob("results/cells/*.json")) and time.monotonic() < end:
            await asyncio.sleep(0.2)
        await client.km.interrupt_kernel()
        await running

    with pytest.raises(CellExecutionError, match="KeyboardInterrupt"):
        asyncio.get_event_loop().run_until_complete(interrupted())
    children = [child for child in psutil.Process(pid).children(recursive=True) if "spawn_main" in str(child.cmdline())]
    assert children == []
    (bench.folder / "open").touch()
    assert "2 cells: 1 computed, 1 cached" in shown(kernel(NAPPING))


def test_the_notebook_leads_from_the_import_to_a_method_s_row_and_its_picture(tmp_path):
    notebook = nbformat.read(ROOT / "benchmarks" / "first_method.ipynb", as_version=4)
    assert len([cell for cell in notebook.cells if cell.cell_type == "code"]) == 10
    for cell in notebook.cells:
        for text, short in SHORTER.items():
            cell.source = cell.source.replace(text, short)
    sources = "\n".join(cell.source for cell in notebook.cells)
    assert [short for short in SHORTER.values() if sources.count(short) != 1] == []
    client = nbclient.NotebookClient(notebook, timeout=400, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    outputs = {cell.source: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    run = next(shown(found) for source, found in outputs.items() if "mmc_bench.run(" in source)
    assert "2 cells: 2 computed" in run and "<td>blend</td>" in run
    assert "data:image/png" in shown(outputs["mmc_bench.plot(results, paths=False)"])
    assert "data:image/png" in shown(outputs["mmc_bench.gallery(task)"])
    said = [output["text"] for found in outputs.values() for output in found if output.get("name") == "stderr"]
    assert len(said) == 1 and said[0].startswith("measuring linear at 5 points")
    assert os.listdir(tmp_path) == ["results"]
