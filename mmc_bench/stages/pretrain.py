"""Stage 1: train a backbone on the cued data; its record is shared by every method."""

import time
from datetime import UTC, datetime

import torch

from mmc_bench.landscape.barriers import invariances
from mmc_bench.results.jobs import Pretraining
from mmc_bench.results.records import Epoch, PretrainRecord, Timing
from mmc_bench.stages.provenance import experiment_seeds, provenance
from mmc_bench.stages.score import check_weights, score
from mmc_bench.stages.workshop import Report, Workshop
from mmc_bench.training import Progress, Training, evaluate, stepped
from mmc_bench.training.precision import arithmetic


def pretrain(pretraining: Pretraining, workshop: Workshop, report: Report) -> PretrainRecord:
    """Train θ_C, save its weights and record, and return the record.

    The learning curve has, for each epoch, the running training loss and accuracy, and the accuracy on the
    NC and C test images.

    Raises
    ------
    UserError
        When a loss or a weight is NaN or infinite.
    """
    started, clock = datetime.now(UTC), time.perf_counter()
    data = workshop.data(pretraining)
    seconds = {"data": time.perf_counter() - clock, "curve": 0.0}
    recipe = pretraining.recipe
    _, generator = workshop.seed_everything("pretraining", pretraining.seed)
    model = workshop.model(pretraining, data)
    watched = {name: data.splits[name].first(recipe.curve_images) for name in ("NC", "C")}
    curve: list[Epoch] = []

    def add_to_curve(loss: torch.Tensor, accuracy: torch.Tensor) -> None:
        start = time.perf_counter()
        check_weights(model, "pretraining made")
        scores = {name: evaluate(model, images).accuracy for name, images in watched.items()}
        curve.append(Epoch(train_loss=loss.item(), train=accuracy.item(), **scores))
        seconds["curve"] += time.perf_counter() - start

    progress = Progress(report)
    with arithmetic(workshop.precision, workshop.device):
        clock = time.perf_counter()
        training = Training(
            model,
            data.pretraining,
            lr=recipe.lr,
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            generator=generator,
            progress=progress,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            schedule=stepped(recipe.lr_drops, recipe.lr_drop_factor),
        )
        training.fit(add_to_curve)
        seconds["pretrain"] = time.perf_counter() - clock - seconds["curve"]
        clock = time.perf_counter()
        metrics = score(model, data, data.pretraining)
        seconds["score"] = time.perf_counter() - clock
    made = workshop.store.done(pretraining)
    if isinstance(made, PretrainRecord):  # by another run, while this one slept and lost its lease
        return made
    record = PretrainRecord(
        key=pretraining.key,
        pretraining=pretraining,
        num_classes=data.num_classes,
        weights_sha256=workshop.store.save_weights(pretraining, model.state_dict()),
        metrics=metrics,
        invariance=invariances({name: getattr(metrics, name) for name in data.splits}),
        curve=tuple(curve),
        timing=Timing(
            started=started,
            seconds=seconds,
            images_per_second=progress.images / progress.seconds if progress.seconds else None,
        ),
        provenance=provenance(
            workshop.device,
            workshop.precision,
            workshop.threads,
            [pretraining.dataset, pretraining.backbone],
            experiment_seeds(pretraining.seed),
        ),
    )
    workshop.store.save(record)
    return record
