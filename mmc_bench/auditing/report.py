"""An audit from its first training to its page."""

import html
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mmc_bench import __version__
from mmc_bench.auditing.answer import answer
from mmc_bench.auditing.findings import cues_of, methods_of, reference_of
from mmc_bench.auditing.page import page_html
from mmc_bench.auditing.pictures import Shown
from mmc_bench.auditing.plan import AuditSession, references
from mmc_bench.auditing.probing import Probes
from mmc_bench.auditing.probing import probe as probe_networks
from mmc_bench.auditing.schema import AuditProblem, AuditReport, Images
from mmc_bench.errors import FailedError, UserError
from mmc_bench.results.jobs import Cell
from mmc_bench.results.records import CellRecord, PretrainRecord
from mmc_bench.running.display import Progress
from mmc_bench.running.launch import Computing, run_session
from mmc_bench.running.lines import LineDisplay
from mmc_bench.running.runner import find_missing
from mmc_bench.running.summary import Summary
from mmc_bench.system.files import write_whole

if TYPE_CHECKING:
    from mmc_bench.results.store import Store
    from mmc_bench.suites.plan import Plan

PAGE, NUMBERS = "audit.html", "audit.json"


@dataclass(frozen=True)
class Audited:
    """An audit that has run, as far as it came.

    Attributes
    ----------
    report : AuditReport
        What was found; ``report.answer`` says it in a few sentences, ``report.model_dump()`` is plain data.
    summary : Summary
        The counts of the run: ``cells``, ``computed``, ``cached``, ``failed``, ``seconds``.
    page, numbers : pathlib.Path
        The HTML page and the JSON file.
    """

    report: AuditReport
    summary: Summary
    page: Path
    numbers: Path

    def __repr__(self) -> str:
        return "\n".join([*self.report.answer, f"the report is in {self.page}"])

    def _repr_html_(self) -> str:
        page = html.escape(self.page.read_text(encoding="utf-8"))  # in a frame, since its style is the whole page's
        return f'<iframe srcdoc="{page}" sandbox title="audit" style="width:100%;height:48rem;border:0"></iframe>'


def audit(
    session: AuditSession,
    computing: Computing,
    display: LineDisplay,
    out: Path,
    probe: bool = True,
    progress: Progress = None,
) -> Audited:
    """Run what an audit still needs, and write its report, as far as there are results.

    Parameters
    ----------
    session, computing, display
        What is run, how it computes, and where its progress is shown.
    out
        The folder of the report; it is made before anything is trained.
    probe
        Whether repaired networks are probed for what became of the cue, for which their weights are kept.
    progress
        Where the progress of the probes is shown, as for `mmc_bench.run`.

    Raises
    ------
    UserError
        When something that can be checked beforehand is wrong, the report cannot be written, or nothing has finished.
    """
    plan, started = session.plan, time.monotonic()
    make_folder(out)
    summary = _run(session, replace(computing, keep_weights=probe or computing.keep_weights), display)
    found = _records(plan, session.store)
    if not found and summary.interrupted:
        raise KeyboardInterrupt
    if not found:
        reason = f": {summary.failures[0].label}: {summary.failures[0].error}" if summary.failures else ""
        raise FailedError(f"no network of this audit has been trained yet{reason}")
    shown, probes = Shown.of(session, found), Probes()
    if probe and shown.tested:
        goes_on = not summary.interrupted and summary.stopped is None
        probes = probe_networks(session, computing, found, shown.tested, started, goes_on, progress)
        summary.interrupted |= probes.interrupted
    report = make_report(session, found, probes, shown)
    return Audited(report, summary, *write(report, page_html(report, shown.pictures, shown.without), out))


def _run(session: AuditSession, computing: Computing, display: LineDisplay) -> Summary:
    """Run what is missing; where it is interrupted outside its jobs, too, there is a summary."""
    try:
        return run_session(session, computing, display)
    except KeyboardInterrupt:
        summary = Summary.before(session.plan, find_missing(session.plan, session.store).found)
        summary.interrupted = True
        return summary


def _records(plan: "Plan", store: "Store") -> dict[str, PretrainRecord | CellRecord]:
    """Return the records of an audit that there are, by key: no repairs of other weights than those at hand."""
    models = {job.key: one for job in plan.pretrainings if isinstance(one := store.find(job), PretrainRecord)}
    cells = {job.key: one for job in plan.cells if isinstance(one := store.find(job), CellRecord)}
    weights = {key: model.weights_sha256 for key, model in models.items()}
    own = {key: cell for key, cell in cells.items() if weights.get(cell.pretraining_key) == cell.pretrained_sha256}
    return {**models, **own}


def make_report(
    session: AuditSession,
    found: Mapping[str, PretrainRecord | CellRecord],
    probes: Probes,
    shown: Shown,
) -> AuditReport:
    """Return the report of the records that there are, by key."""
    plan, tested = session.plan, shown.tested
    models = {key: record for key, record in found.items() if isinstance(record, PretrainRecord)}
    cells = {key: record for key, record in found.items() if isinstance(record, CellRecord)}
    reference = reference_of([models[job.key] for job in references(plan) if job.key in models])
    cues = cues_of(plan, models, cells, probes.models, reference, tested)
    offers = {offer.qualified_name: offer for offer, _ in plan.offers}
    missing = find_missing(plan, session.store)
    failed = [(job, failure) for job in missing.jobs if (failure := session.store.find_failure(job))]
    failures = Counter(job.method.name for job, _ in failed if isinstance(job, Cell))
    report = AuditReport(
        made=datetime.now(UTC),
        mmc_bench=__version__,
        backbone=plan.pretrainings[0].network,
        images=Images(
            folders=tuple(str(folder.root) for folder in session.folders.values()),
            classes=tested.classes if tested else None,
            largest_class=tested.largest_class if tested else None,
            size=shown.size,
            **shown.counts,
        ),
        cue_rate=plan.suite.cue_rates[0],
        strength=next(iter(plan.suite.axes)).rpartition(".")[2],
        epochs=plan.suite.pretrain.epochs,
        seeds=plan.suite.seeds,
        path_points=plan.suite.connect.points,
        reference=reference,
        cues=cues,
        methods=methods_of(offers.values(), cues, failures),
        problems=(
            *(AuditProblem(label=failure.label + plan.note_of(job), error=failure.error) for job, failure in failed),
            *probes.problems,
        ),
        missing=len(missing.jobs) - len(failed),
        unprobed=probes.unprobed,
    )
    return report.model_copy(update={"answer": answer(report)})


def make_folder(out: Path) -> None:
    """Make the folder of a report.

    Raises
    ------
    UserError
        When it cannot be made or written to.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file: name a folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise _unwritable(out, error) from None


def _unwritable(out: Path, error: OSError) -> UserError:
    return UserError(f"the report cannot be written to {out} ({error.strerror}): choose another --out")


def write(report: AuditReport, page: str, out: Path) -> tuple[Path, Path]:
    """Write a report and its page into a folder, and return their paths.

    Raises
    ------
    UserError
        When the folder cannot be written to.
    """
    try:
        write_whole(out / PAGE, page.encode())
        write_whole(out / NUMBERS, (report.model_dump_json(indent=1) + "\n").encode())
    except OSError as error:
        raise _unwritable(out, error) from None
    return out / PAGE, out / NUMBERS
