"""What became of the cues in the networks of an audit, all against the one that never saw a cue."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mmc_bench.auditing.chance import ScoredImages
from mmc_bench.auditing.findings import SWAP, picked_up
from mmc_bench.auditing.plan import references
from mmc_bench.auditing.schema import AuditProblem
from mmc_bench.errors import UserError
from mmc_bench.mechanisms.verdicts import way_back
from mmc_bench.report.probed import ProbedModel
from mmc_bench.results.jobs import Pretraining, Probe
from mmc_bench.results.probes import ProbeRecord
from mmc_bench.results.records import CellRecord, PretrainRecord
from mmc_bench.running.display import Progress
from mmc_bench.running.interrupts import interrupted_after, raised_interrupts
from mmc_bench.running.launch import Computing
from mmc_bench.running.probing import Prober

if TYPE_CHECKING:
    from mmc_bench.auditing.plan import AuditSession
    from mmc_bench.stages.checkpoints import Tensors

#: Cells without weights that a sentence names.
MOST_NAMED = 5


class NotProbedError(Exception):
    """A network has no record of a probe, and none is made now."""


@dataclass
class Probes:
    """What is known of the cue in an audit's repaired networks.

    Parameters
    ----------
    models
        Those that are probed, by the cell's key.
    unprobed
        How many more could be probed.
    problems
        Why others cannot be.
    interrupted
        Whether it ended before its time.
    """

    models: dict[str, ProbedModel] = field(default_factory=dict)
    unprobed: int = 0
    problems: list[AuditProblem] = field(default_factory=list)
    interrupted: bool = False


class AuditProber(Prober):
    """Probes the networks of an audit; θ_NC is one for all kinds and strengths of cues, since it is trained on none."""

    def __init__(self, session: "AuditSession", computing: Computing, progress: Progress = None) -> None:
        super().__init__(session, computing, progress)
        self._plans.append(session.plan)
        self.measures = True

    def prepare(self, experiments: Sequence[Pretraining]) -> None:
        """Note the experiments of the audit whose networks are probed; nothing is trained."""
        cue_free = {reference.seed: reference for reference in references(self._plans[0])}
        for one in experiments:
            self._planned[one.key], self._cue_free[one.key] = one, cue_free[one.seed]

    def _measured(self, probe: Probe, weights: "Tensors") -> ProbeRecord:
        if not self.measures:
            raise NotProbedError
        return super()._measured(probe, weights)

    def probed(self, cell: CellRecord, start: PretrainRecord) -> ProbedModel:
        """Return what became of the cue in a repaired network.

        Raises
        ------
        NotProbedError
            When it is not known, and nothing is measured.
        UserError
            When a network cannot be probed.
        """
        job = start.pretraining
        holds = self.hold_of_record(job, cell), self.hold_of_record(job, start), self.cue_free(job)
        return ProbedModel(cell.cell.method.name, job, *holds, *way_back(cell.paths["linear"].test))


def probe(
    session: "AuditSession",
    computing: Computing,
    found: Mapping[str, PretrainRecord | CellRecord],
    images: ScoredImages,
    since: float,
    measures: bool = True,
    progress: Progress = None,
) -> Probes:
    """Return what became of the cue in each repaired network that had picked it up.

    Networks that are probed already are not probed again.

    Parameters
    ----------
    found
        The audit's records, by key.
    images
        The test images.
    since
        The reading of ``time.monotonic`` from which a time limit counts.
    measures
        Whether networks are probed that are not yet; otherwise only records are read.
    """
    pairs = [*_to_probe(found, images)]
    prober, probes = AuditProber(session, computing, progress), Probes()
    prober.measures = measures
    prober.prepare([start.pretraining for _, start in pairs])
    if lost := [cell for cell, _ in pairs if not cell.weights_sha256]:
        probes.problems.append(_about_lost(lost, str(session.store.root / "cells")))
    at_hand = {reference.seed: reference.key in found for reference in references(session.plan)}
    failed = {reference.seed for reference in references(session.plan) if session.store.find_failure(reference)}
    kept = [(cell, start) for cell, start in pairs if cell.weights_sha256]
    waiting = [(cell, start) for cell, start in kept if at_hand[start.pretraining.seed]]
    probes.unprobed = sum(not at_hand[one.pretraining.seed] and one.pretraining.seed not in failed for _, one in kept)
    while waiting:
        try:
            with raised_interrupts(), interrupted_after(computing.time_limit if prober.measures else None, since):
                _probe_all(prober, waiting, probes)
        except KeyboardInterrupt:  # what is known already is read all the same
            probes.interrupted, prober.measures = True, False
    return probes


def _probe_all(prober: AuditProber, waiting: list[tuple[CellRecord, PretrainRecord]], probes: Probes) -> None:
    """Probe networks one after another; each that is done with leaves the list."""
    while waiting:
        cell, start = waiting[0]
        try:
            probes.models[cell.key] = prober.probed(cell, start)
        except NotProbedError:
            probes.unprobed += 1
        except UserError as error:
            problem = AuditProblem(label="probing the repaired networks", error=str(error))
            probes.problems += [problem] if problem not in probes.problems else []
        waiting.pop(0)


def _to_probe(
    found: Mapping[str, PretrainRecord | CellRecord], images: ScoredImages
) -> Iterator[tuple[CellRecord, PretrainRecord]]:
    """Yield repaired networks that had picked up their cue, and what they were before."""
    for cell in found.values():
        start = found.get(cell.pretraining_key) if isinstance(cell, CellRecord) else None
        if not isinstance(cell, CellRecord) or not isinstance(start, PretrainRecord):
            continue
        if picked_up(start, cell.effects[SWAP].flips[0], images):
            yield cell, start


def _about_lost(cells: Sequence[CellRecord], folder: str) -> AuditProblem:
    """Return the problem of cells whose weights were not kept, and its remedy."""
    named = ", ".join(f"{cell.key[:8]} {cell.cell.method.name}" for cell in cells[:MOST_NAMED])
    more = ", …" if len(cells) > MOST_NAMED else ""
    networks = "1 repaired network keeps" if len(cells) == 1 else f"{len(cells)} repaired networks keep"
    return AuditProblem(
        label="probing the repaired networks",
        error=f"{networks} no weights ({named}{more}), since a run without probes made them: delete their records in "
        f"{folder} and run the audit again",
    )
