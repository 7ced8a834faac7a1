"""Which cells at hand can be probed, and what is said of the others."""

from collections.abc import Sequence
from pathlib import Path

from mmc_bench.errors import NothingSelectedError, UserError
from mmc_bench.plugin.in_memory import DISTRIBUTION
from mmc_bench.results.jobs import OwnWeights, Pretraining
from mmc_bench.results.records import CellRecord
from mmc_bench.running.selection import about_none
from mmc_bench.running.session import CHECKPOINTS, Session
from mmc_bench.stages.checkpoints import file_of_kept, qualified
from mmc_bench.system.streams import tell
from mmc_bench.system.words import counted

#: Cells that a sentence names.
MOST_NAMED = 5


def probeable(session: Session, cells: Sequence[CellRecord]) -> list[CellRecord]:
    """Return the cells that can be probed; the others are named, each with the way out.

    Raises
    ------
    NothingSelectedError
        When none can be.
    """
    kept = [cell for cell in cells if cell.weights_sha256]
    sentences = []
    if lost := [cell for cell in cells if not cell.weights_sha256]:
        sentences.append(_about_lost(lost, session.store.root / "cells"))
    obstacles: dict[str, list[CellRecord]] = {}
    for cell in kept:
        if obstacle := _obstacle(session, cell.cell.pretraining):
            obstacles.setdefault(obstacle, []).append(cell)
    for obstacle, own in obstacles.items():
        sentences.append(
            f"{counted(len(own), 'cell')} {'is' if len(own) == 1 else 'are'} left out ({_names(own)}): {obstacle}"
        )
    left_out = {cell.key for own in obstacles.values() for cell in own}
    kept = [cell for cell in kept if cell.key not in left_out]
    if not kept:
        raise NothingSelectedError("; ".join(sentences))
    for sentence in sentences:
        tell(f"mmc-bench: {sentence}")
    return kept


def _obstacle(session: Session, pretraining: Pretraining) -> str | None:
    """Return why an experiment's θ_NC cannot be pretrained, and what to do; None where it can be."""
    for kind, reference in (("dataset", pretraining.dataset), ("backbone", pretraining.backbone)):
        try:
            session.registry.get(kind, qualified(reference))
        except UserError as error:
            if reference.distribution != DISTRIBUTION:
                return f"{error}; --plugins-dir adds plugins"
            return (
                f"{reference.name} is a network of another program: "
                "give mmc_bench.probe its class as backbones=[CLASS], or the network as checkpoint=MODEL"
            )
    if (start := pretraining.start) is not None and file_of_start(start, session) is None:
        return (
            f"the pretraining began with weights {start.name}, and so must the one without the cue: "
            "give --start-from FILE and --backbone NAME (start= in Python)"
        )
    if pretraining.checkpoint is not None and not session.has_suite:
        return (
            f"nothing says how to pretrain {pretraining.network} without the cue: "
            "give --suite NAME, whose recipe is taken, with --checkpoint FILE and --backbone NAME"
        )
    return None


def file_of_start(start: OwnWeights, session: Session) -> Path | None:
    """Return the file of the weights that a pretraining began with: the one given, or that of a call from Python."""
    own = session.own_start
    if own is not None and own[0].sha256 == start.sha256:
        return own[1]
    kept = file_of_kept(session.store.root / CHECKPOINTS, start.sha256)
    return kept if kept.is_file() else None


def _names(cells: Sequence[CellRecord]) -> str:
    named = ", ".join(f"{cell.key[:8]} {cell.cell.method.name}" for cell in cells[:MOST_NAMED])
    return f"{named}, …" if len(cells) > MOST_NAMED else named


def about_no_cell(session: Session) -> str:
    """Return the sentence about a selection without cells; of a suite's, how those of the user's own weights are."""
    sentence = about_none(session, "record of a cell")
    if session.has_suite and session.own_weights is None and session.own_start is None:
        own = {record.cell.pretraining.network for record in session.store.cell_records() if _is_own(record)}
        if own:
            sentence += (
                f"; those of {', '.join(sorted(own))} need --backbone NAME and the same --checkpoint or --start-from"
            )
    return sentence


def _is_own(record: CellRecord) -> bool:
    pretraining = record.cell.pretraining
    return (pretraining.checkpoint or pretraining.start) is not None


def _about_lost(cells: Sequence[CellRecord], folder: Path) -> str:
    """Return the sentence about cells whose weights were not kept."""
    keeps, which = ("keeps", "its record") if len(cells) == 1 else ("keep", "their records")
    return (
        f"{counted(len(cells), 'cell')} {keeps} no weights ({_names(cells)}): "
        f"delete {which} in {folder} and run the suite again with --keep-weights"
    )
