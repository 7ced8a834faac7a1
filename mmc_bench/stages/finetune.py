"""Stage 2: hand a pretrained model and the clean set to a method."""

import copy
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from mmc_bench.data.splits import ExperimentData
from mmc_bench.errors import UserError
from mmc_bench.results.jobs import Cell, Pretraining, Trial
from mmc_bench.results.making import Budget
from mmc_bench.stages.resources import Report, Resources
from mmc_bench.system.process_state import kept
from mmc_bench.training import Backbone, Method, Progress, Task
from mmc_bench.training.passes import counted_passes, counting, place_of_passes, take_off_hooks
from mmc_bench.training.returned import UnfitModelError, accepted

#: Images that a model's outputs are compared on with those of its saved weights.
SOME = 16


def fine_tune(
    cell: Cell | Trial, pretrained: Backbone, data: ExperimentData, resources: Resources, report: Report
) -> tuple[Backbone, dict[str, object], Progress, int, Budget]:
    """Run a cell's method. What it changes of the process is put back, and reported as a note.

    Returns
    -------
    tuple
        The fine-tuned model, frozen, in eval mode; the method's parameters in full; its progress; its seed; its
        budget. The model is a network of the core's own with the weights that the method returned.

    Raises
    ------
    UserError
        When the method changed its data in place.
    UnfitModelError
        When the method returns something that cannot be scored: `mmc_bench.training.returned` says what can be.
    """
    offer = resources.offer("method", cell.method)
    some = data.validation.batch(slice(SOME))[0]
    place = place_of_passes(pretrained, some[:2])
    with counting() as tally, kept(f"method {cell.method.name}", lambda sentence: report({"note": sentence})):
        config = offer.configure(cell.method.parameters)
        method: Method = offer.make(config)
        task, seed = task_of(cell.pretraining, pretrained, data, resources, offer.spec.needs, report)
        before = _versions(task)
        with counted_passes(place, task.model, task.pretrained):
            returned = method.fine_tune(task)
    if isinstance(returned, nn.Module):
        take_off_hooks(returned)  # a copy, maybe
    if changed := [name for name, version in _versions(task).items() if version != before[name]]:
        resources.forget()  # other cells share them
        raise UserError(f"method {cell.method.name} changed {changed[0]} in place: work on a clone()")
    try:
        model = accepted(returned, pretrained, task.pretrained, some)
    except UnfitModelError as error:
        raise error.of(f"method {cell.method.name} returned") from None
    return model, config.model_dump(mode="json"), task.progress, seed, Budget(**tally.counts)


def _versions(task: Task) -> dict[str, int]:
    """Return how often torch saw each tensor of a task's data change in place, by a name for people.

    Images in a file are read-only.
    """
    sets = {name: getattr(task, name) for name in ("clean", "validation", "_cued", "_fully_cued", "_all_fully_cued")}
    return {
        f"the {what} of task.{name.lstrip('_')}": tensor._version
        for name, images in sets.items()
        if images is not None
        for what, field in (("images", "storage"), ("labels", "labels"), ("cues", "cues"), ("order", "index"))
        if isinstance(tensor := getattr(images, field), torch.Tensor)
    }


def _refused() -> Backbone:
    raise UserError("this backbone starts from pretrained weights: there is no untrained network of it")


def task_of(
    pretraining: Pretraining,
    pretrained: Backbone,
    data: ExperimentData,
    resources: Resources,
    needs: frozenset[str],
    report: Report = lambda event: None,
) -> tuple[Task, int]:
    """Return what a method with these needs is given, and the seed of its random numbers; all generators are seeded."""
    # One seed for all methods: at one experiment seed they see the same order of the clean images.
    seed, generator = resources.seed_everything("fine-tuning", pretraining.seed)
    task = Task(
        model=copy.deepcopy(pretrained).train(),
        pretrained=copy.deepcopy(pretrained).eval().requires_grad_(False),
        clean=replace(data.clean, role="clean"),
        validation=replace(data.validation, role="validation"),
        num_classes=data.num_classes,
        device=resources.device,
        generator=generator,
        progress=Progress(report),
        needs=needs,
        _cued=replace(data.pretraining, role="cued") if "cued" in needs else None,
        _environments=data.environments.clone() if "environments" in needs else None,
        _clean_environments=data.clean_environments,
        _cue_classes=data.cue_classes,
        _fully_cued=replace(data.all_cued, role="cued") if "fully-cued" in needs else None,
        _all_fully_cued=replace(data.fully_cued, role="cued") if "fully-cued" in needs else None,
        _untrained=partial(resources.model, pretraining, data) if pretraining.backbone.weights is None else _refused,
    )
    return task, seed
