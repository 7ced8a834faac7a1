"""Stage 2: hand a pretrained model and the clean set to a method."""

import copy

from torch import nn

from mmc_bench.data.splits import ExperimentData
from mmc_bench.errors import UserError
from mmc_bench.results.jobs import Cell, Pretraining
from mmc_bench.stages.resources import Report, Resources
from mmc_bench.system.process_state import kept
from mmc_bench.training import Backbone, Method, Progress, Task
from mmc_bench.training.checks import check_same_architecture, check_weights


def fine_tune(
    cell: Cell, pretrained: Backbone, data: ExperimentData, resources: Resources, report: Report
) -> tuple[Backbone, dict[str, object], Progress, int]:
    """Run a cell's method. What it changes of the process is put back, and reported as a note.

    Returns
    -------
    tuple
        The fine-tuned model in eval mode, the method's parameters in full, its progress, and its seed.

    Raises
    ------
    UserError
        When the method returns no model, one of another architecture, or one with a weight that is NaN or
        infinite.
    """
    name = cell.method.name
    offer = resources.offer("method", cell.method)
    with kept(f"method {name}", lambda sentence: report({"note": sentence})):
        config = offer.configure(cell.method.parameters)
        method: Method = offer.make(config)
        task, seed = task_of(cell.pretraining, pretrained, data, resources, offer.spec.needs, report)
        model: Backbone = method.fine_tune(task)
    if not isinstance(model, nn.Module):
        raise UserError(f"method {name} returned {type(model).__name__}, not a model: fine_tune must return one")
    check_same_architecture(pretrained, model, ("pretrained model", "fine-tuned model"))
    check_weights(model, f"method {name} returned")
    return model.eval().requires_grad_(False), config.model_dump(mode="json"), task.progress, seed


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
        clean=data.clean,
        validation=data.validation,
        num_classes=data.num_classes,
        device=resources.device,
        generator=generator,
        progress=Progress(report),
        needs=needs,
        _cued=data.pretraining if "cued" in needs else None,
    )
    return task, seed
