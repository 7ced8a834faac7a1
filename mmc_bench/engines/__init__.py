"""Where cells run: an engine takes jobs and yields their outcomes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mmc_bench.errors import UserError
from mmc_bench.results.jobs import Job, Pretraining
from mmc_bench.results.outages import PatientStore
from mmc_bench.results.store import Store

if TYPE_CHECKING:
    from mmc_bench.results.records import AnyRecord, Failure

GIGABYTE = 1 << 30

#: Called with the events of a job: its stage, an epoch, or a note.
OnEvent = Callable[[Job, dict[str, Any]], None]


@dataclass(frozen=True)
class Settings:
    """The settings of a worker, as plain data that is sent to it.

    `gpu_share` is the part of its GPU's memory that a worker may take, its CUDA context included; `in_memory` are the
    methods and backbones that no plugin registers, pickled (`mmc_bench.plugin.in_memory.pickled`). The worker resolves
    a `precision` of ``"auto"``. `deterministic` holds torch to deterministic algorithms. `image_memory` bounds decoded
    images and rendered splits, in bytes (None: `mmc_bench.data.stored.IMAGE_MEMORY`). `checkpoints` are the paths of
    the user's own weights, by SHA-256. `profile` has pretrainings measure what they use of the device.
    """

    results: str
    plugin_folders: tuple[str, ...] = ()
    data_folders: tuple[tuple[str, str], ...] = ()
    download: bool = True
    device: str = "cpu"
    precision: str = "fp32"
    deterministic: bool = False
    threads: int = 1
    gpu_share: float = 1.0
    image_memory: int | None = None
    checkpoints: tuple[tuple[str, str], ...] = ()
    keep_weights: bool = False
    keep_predictions: bool = False
    profile: bool = False
    in_memory: bytes = b""


def store_of(settings: Settings) -> Store:
    """Return the results folder of a run, where a job is done once all that the run keeps of it is there.

    It waits while its disk is unavailable for a short time.
    """
    return PatientStore(settings.results, keep_predictions=settings.keep_predictions)


@dataclass(frozen=True)
class Outcome:
    """How a job ended: with a record, or with a failure.

    `elsewhere` says that another run did it; `stops`, why the run cannot go on, whatever the job; `killed`,
    that its process was ended from outside; `spoilt`, that its process is no longer what it was at its start;
    `lost_device`, that the GPU answers this process no longer, so that no other job can be done in it;
    `lost_models` are the pretrainings whose weights were found damaged or gone.
    """

    job: Job
    record: "AnyRecord | None" = None
    failure: "Failure | None" = None
    elsewhere: bool = False
    stops: str | None = None
    killed: bool = False
    spoilt: bool = False
    lost_device: bool = False
    lost_models: tuple[Pretraining, ...] = ()


#: Returns the jobs that an outcome makes possible.
FollowUp = Callable[[Outcome], Sequence[Job]]


def nothing_more(outcome: Outcome) -> Sequence[Job]:
    """Return no job."""
    return ()


class StoppedError(UserError):
    """An engine cannot go on, whatever the job; the message says why."""


class Engine(Protocol):
    """Runs jobs, pretrainings before what needs them."""

    def run(
        self, jobs: Sequence[Job], settings: Settings, on_event: OnEvent, follow_up: FollowUp = nothing_more
    ) -> Iterator[Outcome]:
        """Yield the outcome of every job as it ends, and of what follows; closing the iterator stops the work at once.

        Parameters
        ----------
        follow_up
            Called with every outcome before it is yielded.
        """
