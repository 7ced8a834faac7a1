"""Stage 4: the linear path from θ_C to θ_FT."""

from torch import nn

from mmc_bench.cells import Cell
from mmc_bench.data.splits import ExperimentData
from mmc_bench.landscape.barriers import connectivity
from mmc_bench.landscape.paths import evaluate_linear_path
from mmc_bench.records import Connectivity, Metrics


def connect(
    cell: Cell,
    pretrained: nn.Module,
    fine_tuned: nn.Module,
    data: ExperimentData,
    metrics: tuple[Metrics, Metrics],
) -> Connectivity:
    """Return accuracy, loss and barriers on the four splits along the path.

    `metrics` are those of the two models: the path's ends are theirs, and are not computed again.
    """
    ends = tuple({name: getattr(end, name) for name in data.splits} for end in metrics)
    ts, scores = evaluate_linear_path(
        pretrained,
        fine_tuned,
        data.splits,
        data.pretraining_nc.first(cell.connect.batchnorm_images),
        cell.connect.points,
        (ends[0], ends[1]),
    )
    return connectivity(ts, scores)
