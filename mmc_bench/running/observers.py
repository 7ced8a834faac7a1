"""Observers of a run: plugins that are told what happens, each in a thread of its own, so that none can delay the run.

An observer is a class with a ``Config``, as a method is, and any of the functions in `NEWS`. Each takes those of the
arguments listed there that it names:

    plan        the `Plan` of the run
    jobs        the jobs that are about to run: pretrainings, cells, pairs
    results     the results folder, a ``Path``
    job         one of them, with ``key`` and ``label``
    event       what a job is doing: ``{"stage": …}``, or ``{"epoch", "epochs", "loss", "images_per_second"}``
    record      its record, as plain data
    failure     why it has none, as plain data: ``error``, ``traceback`` and more
    summary     the counts that ``mmc-bench run --json`` prints

``run_started`` alone is called by the run itself, before anything else is done: a `UserError` that it raises ends the
command, and is the place to refuse a file that cannot be written. Whatever is raised besides, there or later, is told
in one warning, and the observer hears no more of that run.
"""

import contextlib
import inspect
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import pluggy

from mmc_bench.errors import UserError, nearest
from mmc_bench.plugin import hookspecs
from mmc_bench.plugin.registry import Offer, Registry, one_line
from mmc_bench.results.jobs import Job
from mmc_bench.results.records import AnyRecord, Failure

if TYPE_CHECKING:
    from mmc_bench.suites.plan import Plan

#: What there is to be told of, and the arguments that come with it. In `job_done_elsewhere`, another run has left a
#: record or a failure, and the other one is None.
NEWS: dict[str, tuple[str, ...]] = {
    "run_started": ("plan", "jobs", "results"),
    "job_started": ("job",),
    "job_event": ("job", "event"),
    "job_finished": ("job", "record"),
    "job_failed": ("job", "failure"),
    "job_done_elsewhere": ("job", "record", "failure"),
    "run_finished": ("summary",),
}

#: The older way: hooks of a plugin's module, told of every run; and what they hear of.
HOOKS = {"run_started": "run_started", "cell_finished": "job_finished", "run_finished": "run_finished"}

#: Seconds that observers are given, when a run has ended, to take in what they were told; less after Ctrl-C.
PATIENCE, PATIENCE_INTERRUPTED = 30.0, 2.0

Function = Callable[[Mapping[str, Any]], object]


class Observers:
    """Tells observers of one run, in the order in which things happen, and waits for none while the run goes on."""

    def __init__(self, listeners: "Iterable[_Listener]") -> None:
        self._listeners = list(listeners)
        self._warn: Callable[[str], None] = lambda message: None
        self._started: set[str] = set()

    @classmethod
    def of(cls, registry: Registry, chosen: Iterable[tuple[Offer, Mapping[str, Any]]] = ()) -> "Observers":
        """Return the observers of a run: the hooks of all plugins, and those that the user chose.

        Parameters
        ----------
        chosen
            Offers of kind ``observer``, each with the parameters that differ from its defaults.

        Raises
        ------
        UserError
            When a chosen one does not load, a parameter is not allowed, or it has none of the functions in `NEWS`.
        """
        listeners = _hooks(registry)
        for offer, parameters in chosen:
            label = f"observer {offer.spec.name!r}"
            listeners.append(_Listener(label, functions_of(label, offer.make(parameters)), may_refuse=True))
        return cls(listeners)

    def start(self, warn: Callable[[str], None], plan: "Plan", jobs: list[Job], results: Path) -> None:
        """Tell that a run begins, at once; what goes wrong with an observer, now and later, is told to `warn`.

        Raises
        ------
        UserError
            When a chosen observer refuses the run.
        """
        self._warn = warn
        for listener in self._listeners:
            listener.begin({"plan": plan, "jobs": jobs, "results": results})
        self._report()

    def event(self, job: Job, event: dict[str, Any]) -> None:
        """Tell what a job is doing; its first news is that it has started."""
        if job.key not in self._started:
            self._started.add(job.key)
            self._tell("job_started", job=job)
        self._tell("job_event", job=job, event=event)

    def ended(self, job: Job, record: AnyRecord | None, failure: Failure | None, elsewhere: bool = False) -> None:
        """Tell how a job ended, with a record or a failure; `elsewhere` says that another run did it."""
        self._started.discard(job.key)  # it may be done again in this run, when its weights are lost
        if not self._listeners:
            return
        about = {
            "job": job,
            "cell": job,  # as the hooks call it
            "record": None if record is None else record.model_dump(mode="json"),
            "failure": None if failure is None else failure.model_dump(mode="json"),
        }
        self._tell("job_done_elsewhere" if elsewhere else "job_finished" if record else "job_failed", **about)

    def finish(self, summary: dict[str, Any]) -> None:
        """Tell that the run ended, and wait until everybody has taken in what they were told, but not for ever."""
        self._tell("run_finished", summary=summary)
        patience = PATIENCE_INTERRUPTED if summary.get("interrupted") else PATIENCE
        end = time.monotonic() + patience
        for listener in self._listeners:
            listener.leave()
        with contextlib.suppress(KeyboardInterrupt):  # from somebody whose patience is shorter
            for listener in self._listeners:
                listener.wait(end - time.monotonic())
        for listener in self._listeners:
            if listener.is_busy:
                self._warn(f"{listener.label} could not keep up with the run: what it was told last may be lost")
        self._report()

    def _tell(self, news: str, **about: Any) -> None:
        for listener in self._listeners:
            listener.tell(news, about)
        self._report()

    def _report(self) -> None:
        """Name those that failed, each once, and forget them."""
        for listener in [listener for listener in self._listeners if listener.trouble]:
            self._warn(f"{listener.label} failed in {listener.trouble}; it is told no more of this run")
            self._listeners.remove(listener)


class _Listener:
    """One observer, with a queue of what it has yet to be told."""

    def __init__(self, label: str, functions: Mapping[str, Function], may_refuse: bool = False) -> None:
        self.label, self.trouble = label, ""
        self._functions, self._may_refuse = functions, may_refuse
        self._queue: SimpleQueue[tuple[str, Mapping[str, Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._listen, name=label, daemon=True)

    def begin(self, about: Mapping[str, Any]) -> None:
        """Tell of the run's start, in the thread that calls; what comes later is heard in another."""
        self._hear("run_started", about)
        self._thread.start()

    def tell(self, news: str, about: Mapping[str, Any]) -> None:
        """Leave news in the queue."""
        if news in self._functions:
            self._queue.put((news, about))

    def leave(self) -> None:
        """Say that nothing more will come."""
        self._queue.put(None)

    def wait(self, seconds: float) -> None:
        """Wait until all was heard, or as long as this."""
        self._thread.join(max(0.0, seconds))

    @property
    def is_busy(self) -> bool:
        """Whether something has yet to be heard."""
        return self._thread.is_alive()

    def _listen(self) -> None:
        while not self.trouble and (item := self._queue.get()):
            news, about = item
            self._hear(news, about)

    def _hear(self, news: str, about: Mapping[str, Any]) -> None:
        if news not in self._functions:
            return
        function = self._functions[news]
        try:
            function(about)
        except (Exception, SystemExit) as error:
            if isinstance(error, UserError) and news == "run_started" and self._may_refuse:
                raise
            self.trouble = f"{function.__name__}: {one_line(error)}"


def _hooks(registry: Registry) -> list[_Listener]:
    """Return the observer hooks of the working plugins, a listener for each plugin that has any."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    # Modules have names of their own; two plugins may share theirs.
    labels = {plugin.module: f"{plugin.distribution}:{plugin.name}" for plugin in registry.plugins if plugin.module}
    for module in labels:
        manager.register(module)
    functions: dict[Any, dict[str, Function]] = defaultdict(dict)
    for hook, news in HOOKS.items():
        for found in getattr(manager.hook, hook).get_hookimpls():
            functions[found.plugin][news] = _picking(found.function, found.argnames)
    return [_Listener(f"observer of plugin {labels[module]!r}", heard) for module, heard in functions.items()]


def functions_of(owner: str, observer: object) -> dict[str, Function]:
    """Return the functions of an observer by what they are told of; each is given all arguments by name.

    Raises
    ------
    UserError
        When it has none, or one asks for an argument that there is not.
    """
    functions: dict[str, Function] = {}
    for news, known in NEWS.items():
        if function := getattr(observer, news, None):
            wanted = tuple(inspect.signature(function).parameters)
            if unknown := sorted(set(wanted) - set(known)):
                raise UserError(f"{owner}: {news} asks for {unknown[0]!r}: {nearest(unknown[0], known)}")
            functions[news] = _picking(function, wanted)
    if not functions:
        raise UserError(f"{owner} has none of the functions {', '.join(NEWS)}")
    return functions


def _picking(function: Callable[..., object], wanted: Iterable[str]) -> Function:
    """Return `function`, to be given all the arguments there are by name, of which it takes those it wants."""

    @wraps(function)
    def picked(about: Mapping[str, Any]) -> object:
        return function(**{name: about[name] for name in wanted})

    return picked
