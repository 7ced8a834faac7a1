"""Observers of a run: plugins that receive its events, each in a thread of its own, so that none can delay the run.

An observer is a class with a ``Config``, as a method is, and any of the functions in `FUNCTIONS`. Each takes those of
the arguments listed there that it names:

    plan        the `Plan` of the run
    jobs        the jobs that are about to run: pretrainings, cells, pairs
    results     the results folder, a ``Path``
    job         one of them, with ``key`` and ``label``
    event       what a job is doing: ``{"stage": …}``, or ``{"epoch", "epochs", "loss", "images_per_second"}``
    record      its record, as plain data
    failure     why it has none, as plain data: ``error``, ``traceback`` and more
    summary     the counts that ``mmc-bench run --json`` prints

``run_started`` is called before anything else is done, in the thread of the run: a `UserError` that it raises ends the
command, and is the place to refuse a file that cannot be written. Any other error, there or later, is reported in one
warning, and the observer is not called again in that run.
"""

import contextlib
import inspect
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from mmc_bench.errors import UserError, nearest
from mmc_bench.plugin.offers import Offer, one_line
from mmc_bench.results.jobs import Job

if TYPE_CHECKING:
    from mmc_bench.results.records import AnyRecord, Failure
    from mmc_bench.suites.plan import Plan

#: The functions of an observer that a run calls, and the arguments of each. In `job_done_elsewhere`, another run has
#: left a record or a failure, and the other one is None.
FUNCTIONS: dict[str, tuple[str, ...]] = {
    "run_started": ("plan", "jobs", "results"),
    "job_started": ("job",),
    "job_event": ("job", "event"),
    "job_finished": ("job", "record"),
    "job_failed": ("job", "failure"),
    "job_done_elsewhere": ("job", "record", "failure"),
    "run_finished": ("summary",),
}

#: Seconds that observers have, when a run has ended, to work through their queues; less after Ctrl-C.
GRACE, GRACE_INTERRUPTED = 30.0, 2.0

Function = Callable[[Mapping[str, Any]], object]


class Observers:
    """Calls the observers of one run, in the order in which things happen, and waits for none during the run."""

    def __init__(self, observers: "Iterable[_Observer]") -> None:
        self._observers = list(observers)
        self._warn: Callable[[str], None] = lambda message: None
        self._started: set[str] = set()

    @classmethod
    def of(cls, chosen: Iterable[tuple[Offer, Mapping[str, Any]]]) -> "Observers":
        """Return the observers that the user chose.

        Parameters
        ----------
        chosen
            Offers of kind ``observer``, each with the parameters that differ from its defaults.

        Raises
        ------
        UserError
            When one does not load, a parameter is not allowed, or it has none of the functions in `FUNCTIONS`.
        """
        observers = []
        for offer, parameters in chosen:
            label, config = f"observer {offer.spec.name!r}", offer.configure(parameters)
            with offer.blamed("cannot be made"):
                observer = offer.make(config)
            observers.append(_Observer(label, functions_of(label, observer)))
        return cls(observers)

    def start(self, warn: Callable[[str], None], plan: "Plan", jobs: list[Job], results: Path) -> None:
        """Report that a run begins, at once; `warn` is given what goes wrong with an observer, now and later.

        Raises
        ------
        UserError
            When an observer refuses the run.
        """
        self._warn = warn
        for observer in self._observers:
            observer.start({"plan": plan, "jobs": jobs, "results": results})
        self._drop_failed()

    def event(self, job: Job, event: dict[str, Any]) -> None:
        """Report what a job is doing; its first event says that it has started."""
        if job.key not in self._started:
            self._started.add(job.key)
            self._send("job_started", job=job)
        self._send("job_event", job=job, event=event)

    def ended(self, job: Job, record: "AnyRecord | None", failure: "Failure | None", elsewhere: bool = False) -> None:
        """Report how a job ended, with a record or a failure; `elsewhere` says that another run did it."""
        self._started.discard(job.key)  # it may be done again in this run, when its weights are lost
        if not self._observers:
            return
        name = "job_done_elsewhere" if elsewhere else "job_finished" if record else "job_failed"
        record_data, failure_data = (part and part.model_dump(mode="json") for part in (record, failure))
        self._send(name, job=job, record=record_data, failure=failure_data)

    def finish(self, summary: dict[str, Any]) -> None:
        """Report that the run ended, and wait until every observer has worked through its queue, but not for ever."""
        self._send("run_finished", summary=summary)
        grace = GRACE_INTERRUPTED if summary.get("interrupted") else GRACE
        end = time.monotonic() + grace
        for observer in self._observers:
            observer.close()
        with contextlib.suppress(KeyboardInterrupt):  # the user waits no longer
            for observer in self._observers:
                observer.join(end - time.monotonic())
        for observer in self._observers:
            if observer.is_busy:
                self._warn(f"{observer.label} could not keep up with the run: its last events may be lost")
        self._drop_failed()

    def _send(self, name: str, **arguments: Any) -> None:
        for observer in self._observers:
            observer.send(name, arguments)
        self._drop_failed()

    def _drop_failed(self) -> None:
        """Name those that failed, each once, and drop them."""
        for observer in [observer for observer in self._observers if observer.error]:
            self._warn(f"{observer.label} failed in {observer.error}; it gets no more events of this run")
            self._observers.remove(observer)


class _Observer:
    """One observer, with a queue of the calls that are still to be made."""

    def __init__(self, label: str, functions: Mapping[str, Function]) -> None:
        self.label, self.error = label, ""
        self._functions = functions
        self._queue: SimpleQueue[tuple[str, Mapping[str, Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=label, daemon=True)

    def start(self, arguments: Mapping[str, Any]) -> None:
        """Call ``run_started``, in the calling thread; later calls are made in the observer's own."""
        self._call("run_started", arguments)
        self._thread.start()

    def send(self, name: str, arguments: Mapping[str, Any]) -> None:
        """Put a call into the queue."""
        if name in self._functions:
            self._queue.put((name, arguments))

    def close(self) -> None:
        """Mark the end of the queue."""
        self._queue.put(None)

    def join(self, seconds: float) -> None:
        """Wait until all calls are made, or as long as this."""
        self._thread.join(max(0.0, seconds))

    @property
    def is_busy(self) -> bool:
        """Whether a call is still to be made or to return."""
        return self._thread.is_alive()

    def _work(self) -> None:
        while not self.error and (call := self._queue.get()):
            self._call(*call)

    def _call(self, name: str, arguments: Mapping[str, Any]) -> None:
        try:
            if name in self._functions:
                self._functions[name](arguments)
        except (Exception, SystemExit) as error:
            if isinstance(error, UserError) and name == "run_started":
                raise
            self.error = f"{name}: {one_line(error)}"


def functions_of(owner: str, observer: object) -> dict[str, Function]:
    """Return the functions of an observer by name; each is called with all its arguments in a mapping.

    Raises
    ------
    UserError
        When it has none, or one asks for an argument that there is not.
    """
    functions: dict[str, Function] = {}
    for name, known in FUNCTIONS.items():
        if function := getattr(observer, name, None):
            wanted = tuple(inspect.signature(function).parameters)
            if unknown := sorted(set(wanted) - set(known)):
                raise UserError(f"{owner}: {name} asks for {unknown[0]!r}: {nearest(unknown[0], known)}")
            functions[name] = _picking(function, wanted)
    if not functions:
        raise UserError(f"{owner} has none of the functions {', '.join(FUNCTIONS)}")
    return functions


def _picking(function: Callable[..., object], wanted: Iterable[str]) -> Function:
    """Return a function of a mapping that passes on the arguments that `function` wants."""
    return lambda arguments: function(**{name: arguments[name] for name in wanted})
