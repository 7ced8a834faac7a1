"""What became of the cues in the networks of an audit, all against the one that never saw a cue."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mmc_bench.auditing.findings import picked_up
from mmc_bench.auditing.plan import references
from mmc_bench.mechanisms.verdicts import way_back
from mmc_bench.report.probed import ProbedModel
from mmc_bench.results.jobs import Pretraining
from mmc_bench.results.records import CellRecord, PretrainRecord
from mmc_bench.running.display import Progress
from mmc_bench.running.launch import Computing
from mmc_bench.running.probing import Prober

if TYPE_CHECKING:
    from mmc_bench.auditing.plan import AuditSession


class AuditProber(Prober):
    """Probes the networks of an audit; θ_NC is one for all kinds and strengths of cues, since it is trained on none."""

    def __init__(self, session: "AuditSession", computing: Computing, progress: Progress = None) -> None:
        super().__init__(session, computing, progress)
        self._plans.append(session.plan)

    def prepare(self, experiments: Sequence[Pretraining]) -> None:
        """Note the experiments of the audit whose networks are probed; nothing is trained."""
        cue_free = {reference.seed: reference for reference in references(self._plans[0])}
        for one in experiments:
            self._planned[one.key], self._cue_free[one.key] = one, cue_free[one.seed]


def probe(
    session: "AuditSession",
    computing: Computing,
    found: Mapping[str, PretrainRecord | CellRecord],
    progress: Progress = None,
) -> dict[str, ProbedModel]:
    """Return what became of the cue in each repaired network that had picked it up, by the cell's key.

    Networks that are probed already are not probed again.

    Parameters
    ----------
    found
        The audit's records, by key.

    Raises
    ------
    UserError
        When a network cannot be probed.
    """
    pairs = []
    at_hand = {reference.seed for reference in references(session.plan) if reference.key in found}
    for cell in found.values():
        start = found.get(cell.pretraining_key) if isinstance(cell, CellRecord) and cell.weights_sha256 else None
        if isinstance(start, PretrainRecord) and picked_up(start) and start.pretraining.seed in at_hand:
            pairs.append((cell, start))
    prober = AuditProber(session, computing, progress)
    prober.prepare([start.pretraining for _, start in pairs])
    probed = {}
    for cell, start in pairs:
        assert isinstance(cell, CellRecord)
        job = start.pretraining
        holds = prober.hold_of_record(job, cell), prober.hold_of_record(job, start), prober.cue_free(job)
        probed[cell.key] = ProbedModel(cell.cell.method.name, job, *holds, *way_back(cell.paths["linear"].test))
    return probed
