"""Stage 2: hand a pretrained model and the clean set to a method."""

import copy

from torch import nn

from mmc_bench.data.splits import ExperimentData
from mmc_bench.errors import UserError
from mmc_bench.landscape.paths import check_same_architecture
from mmc_bench.plugin.parameters import check_parameters, construct
from mmc_bench.results.jobs import Cell
from mmc_bench.stages.score import check_weights
from mmc_bench.stages.workshop import Report, Workshop
from mmc_bench.training import Backbone, Method, Progress, Task


def fine_tune(
    cell: Cell, pretrained: Backbone, data: ExperimentData, workshop: Workshop, report: Report
) -> tuple[Backbone, dict[str, object], Progress, int]:
    """Run a cell's method.

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
    offer = workshop.registry.get("method", f"{cell.method.distribution}:{name}")
    target = workshop.target("method", cell.method)
    config = check_parameters(f"method {name}", target, cell.method.parameters)
    method: Method = construct(target, config)
    # One seed for all methods: at one experiment seed they see the same order of the clean images.
    seed, generator = workshop.seed_everything("fine-tuning", cell.pretraining.seed)
    frozen = copy.deepcopy(pretrained).eval().requires_grad_(False)
    progress = Progress(report)
    task = Task(
        model=copy.deepcopy(pretrained).train(),
        pretrained=frozen,
        clean=data.clean,
        validation=data.validation,
        num_classes=data.num_classes,
        device=workshop.device,
        generator=generator,
        progress=progress,
        needs=offer.spec.needs,
        _cued=data.pretraining if "cued" in offer.spec.needs else None,
    )
    model = method.fine_tune(task)
    if not isinstance(model, nn.Module):
        raise UserError(f"method {name} returned {type(model).__name__}, not a model: fine_tune must return one")
    check_same_architecture(pretrained, model, ("pretrained model", "fine-tuned model"))
    check_weights(model, f"method {name} returned")
    return model.eval().requires_grad_(False), config.model_dump(mode="json"), progress, seed
