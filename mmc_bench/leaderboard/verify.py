"""Re-running cells of the leaderboard, and comparing what comes out with what was reported."""

import hashlib
import random
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mmc_bench.data.locations import Wanted
from mmc_bench.errors import UserError
from mmc_bench.leaderboard.checks import within
from mmc_bench.leaderboard.schemas import Tolerances, Verification, VerifiedCell, as_yaml
from mmc_bench.leaderboard.submissions import VERIFICATIONS, Board, Entry, cell_of, cells_of
from mmc_bench.plugin.offers import Offer
from mmc_bench.plugin.registry import Registry
from mmc_bench.results.jobs import Cell, PluginRef, Pretraining
from mmc_bench.results.making import Provenance
from mmc_bench.results.metrics import SPLITS
from mmc_bench.results.records import CellRecord
from mmc_bench.results.versions import versions_of_stages
from mmc_bench.running.session import wanted_by
from mmc_bench.suites.plan import Plan
from mmc_bench.suites.suite import Suite
from mmc_bench.system.files import write_whole


def sample_cells(entries: Sequence[Entry], number: int, seed: int) -> list[Entry]:
    """Return `number` cells drawn at random, all where there are no more; the same ones for the same seed.

    Raises
    ------
    UserError
        When there is no cell to draw.
    """
    cells = sorted((entry for entry, _ in cells_of(entries)), key=lambda entry: entry.file)
    if not cells:
        raise UserError("there is nothing to verify: the leaderboard has no cells")
    return random.Random(seed).sample(cells, min(number, len(cells)))


def wanted_sources(entries: Iterable[Entry], registry: Registry) -> dict[str, Wanted]:
    """Return the image sources behind cells."""
    return wanted_by(_offer(registry, "dataset", cell_of(entry).cell.pretraining.dataset) for entry in entries)


def known_sources(registry: Registry) -> dict[str, Wanted]:
    """Return the image sources that any dataset reads, with class counts where all its readers want the same.

    Folders may be given for each of them: which cells are drawn is not known before.
    """
    counts: dict[str, set[int | None]] = defaultdict(set)
    offers = registry.offers("dataset")
    for offer in offers:
        for source in offer.spec.sources:
            counts[source].add(offer.spec.num_classes)
    return {
        source: need if len(counts[source]) == 1 else replace(need, num_classes=None)
        for source, need in wanted_by(offers).items()
    }


def plan_again(entries: Sequence[Entry], registry: Registry, images: Mapping[str, str]) -> tuple[Plan, dict[str, Cell]]:
    """Return a plan of cells as the installed code would run them, and its cells by the file of the record.

    Parameters
    ----------
    images
        Identity of the images behind each source that is replaced; other sources are the originals.

    Raises
    ------
    UserError
        When a plugin is not installed, or a cell was run on other images.
    """
    cells: dict[str, Cell] = {}
    offers: dict[tuple[str, str], tuple[Offer, PluginRef]] = {}
    for entry in entries:
        cell = cell_of(entry).cell
        p = cell.pretraining
        for source, identity in p.images.items():
            if images.get(source, "original") != identity:
                wanted = "the originals: give no class folders" if identity == "original" else f"{identity}: give them"
                raise UserError(
                    f"{entry.file} was run on images of {source} that are {wanted} with --data {source}=DIR"
                )
        now = {}
        for kind, plugin in (("dataset", p.dataset), ("backbone", p.backbone), ("method", cell.method)):
            offer = _offer(registry, kind, plugin)
            now[kind] = plugin.with_changes(version=offer.version)
            offers[kind, offer.qualified_name] = offer, now[kind]
        pretraining = p.with_changes(
            versions=versions_of_stages(*p.versions), dataset=now["dataset"], backbone=now["backbone"]
        )
        cells[entry.file] = cell.with_changes(
            versions=versions_of_stages(*cell.versions), pretraining=pretraining, method=now["method"]
        )
    pretrainings = {cell.pretraining.key: cell.pretraining for cell in cells.values()}
    plan = Plan(_suite(cells.values()), tuple(pretrainings.values()), tuple(cells.values()), tuple(offers.values()))
    return plan, cells


def _offer(registry: Registry, kind: str, plugin: PluginRef) -> Offer:
    return registry.get(kind, f"{plugin.distribution}:{plugin.name}")


def _suite(cells: Iterable[Cell]) -> Suite:
    """Return a suite that names what the cells do, for those who watch the run."""
    cells = list(cells)

    def names(plugins: Iterable[PluginRef]) -> tuple[str, ...]:
        return tuple(sorted({plugin.name for plugin in plugins}))

    pretrainings: list[Pretraining] = [cell.pretraining for cell in cells]
    return Suite(
        name="verify",
        datasets=names(p.dataset for p in pretrainings),
        backbones=names(p.backbone for p in pretrainings),
        methods=names(cell.method for cell in cells),
        cue_rates=tuple(sorted({p.cue_rate for p in pretrainings if p.cue_rate is not None})),
        seeds=tuple(sorted({p.seed for p in pretrainings})),
    )


def by_arithmetic(entries: Iterable[Entry]) -> dict[tuple[str, int], list[Entry]]:
    """Return the cells by the precision and the number of threads that they were run with, in order."""
    groups: dict[tuple[str, int], list[Entry]] = defaultdict(list)
    for entry in entries:
        provenance = cell_of(entry).provenance
        groups[provenance.precision, provenance.threads].append(entry)
    return dict(sorted(groups.items()))


def compared(entry: Entry, again: CellRecord, tolerances: Tolerances) -> VerifiedCell:
    """Return how a cell that was re-run compares with its record, in accuracy on the four splits."""
    reported, found = cell_of(entry), again
    same_versions = reported.key == found.key
    tolerance = tolerances.other
    if same_versions:
        same = _same_machine(reported.provenance, found.provenance)
        tolerance = tolerances.same_machine if same else tolerances.same_code
    cell = VerifiedCell(
        record=entry.file,
        sha256=entry.sha256,
        reported=_accuracies(reported),
        found=_accuracies(found),
        same_versions=same_versions,
        tolerance=tolerance,
        agrees=True,
    )
    return cell.model_copy(update={"agrees": within(cell.difference, tolerance)})


def _accuracies(record: CellRecord) -> dict[str, float]:
    return {split: getattr(record.metrics, split).accuracy for split in SPLITS}


def _same_machine(first: Provenance, second: Provenance) -> bool:
    """Tell whether the same bits can be expected; a GPU adds in an order of its own each time."""
    fields = ("device", "precision", "threads", "platform", "python")
    packages = first.packages.keys() & second.packages.keys()  # an older record may lack some
    return (
        first.device.startswith("cpu")
        and all(getattr(first, name) == getattr(second, name) for name in fields)
        and all(first.packages[name] == second.packages[name] for name in packages)
    )


def check_writable(board: Board) -> None:
    """Make the folder of verifications, and try a file in it.

    Raises
    ------
    UserError
        When it cannot be made or written: known before cells run for hours.
    """
    folder = board.root / VERIFICATIONS
    try:
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}") from None


def save_verification(board: Board, verification: Verification) -> Path:
    """Write what was re-run to a file of its own, and return it."""
    content = as_yaml(verification)
    folder = board.root / VERIFICATIONS
    path = folder / f"{verification.date.isoformat()}-{hashlib.sha256(content).hexdigest()[:12]}.yaml"
    try:
        folder.mkdir(exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None
    return path
