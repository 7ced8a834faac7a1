"""Checking before a run that weights and networks of the user's own fit the data."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mmc_bench.data.locations import check_present
from mmc_bench.errors import UserError
from mmc_bench.plugin.in_memory import DISTRIBUTION
from mmc_bench.results.canonical import canonical_json
from mmc_bench.results.jobs import Job, Pretraining

if TYPE_CHECKING:
    from mmc_bench.running.session import Session


def check_fit(session: "Session", jobs: Iterable[Job], download: bool) -> None:
    """Make each network of the user's own, or with weights of the user's own, once for each dataset of these jobs.

    Raises
    ------
    UserError
        When a network cannot be trained, or weights cannot be read, do not fit it or are not finite.
    """
    own = [job for job in jobs if isinstance(job, Pretraining) and _is_own(job)]
    alike = {canonical_json([job.dataset.content(), job.images, job.backbone.content()]): job for job in own}
    if not alike:
        return
    import torch

    from mmc_bench.data.sources import Sources
    from mmc_bench.stages.own_weights import first_model
    from mmc_bench.stages.resources import Resources

    resources = Resources(
        *(session.registry, session.store, Sources(dict(session.data), download), torch.device("cpu")),
        threads=1,
        checkpoints=session.own_files,
    )
    with torch.random.fork_rng(devices=[]):
        for job in alike.values():
            with resources.offer("dataset", job.dataset).blamed("cannot be loaded"):
                data = resources.data(job)
            with resources.offer("backbone", job.backbone).blamed("cannot be made"):
                first_model(job, data, resources, lambda event: None)


def _is_own(job: Pretraining) -> bool:
    return bool(job.checkpoint or job.start or job.backbone.distribution == DISTRIBUTION)


def check_fit_of_present(session: "Session", jobs: Iterable[Job]) -> None:
    """Do so where the images are at hand."""
    try:
        check_present(session.data, session.wanted_sources(session.plan.suite.datasets), download=False)
    except UserError:
        return
    check_fit(session, jobs, download=False)
