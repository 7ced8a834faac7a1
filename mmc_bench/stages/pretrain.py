"""Stage 1: train a backbone on the cued data; its weights and record are shared by every method."""

import time
from collections.abc import Callable
from dataclasses import replace

import torch

from mmc_bench.data.augmentation import augmented
from mmc_bench.data.cued_images import CuedImages
from mmc_bench.data.splits import ExperimentData
from mmc_bench.errors import UserError
from mmc_bench.results.jobs import Pretraining
from mmc_bench.results.making import Budget
from mmc_bench.results.records import Epoch, GroupEpoch
from mmc_bench.seeds import derive_seed
from mmc_bench.stages.resources import Report, Resources
from mmc_bench.system.tally import tallied
from mmc_bench.training import Backbone, Progress, Training, evaluate, stepped
from mmc_bench.training.checks import check_weights
from mmc_bench.training.passes import counted_passes, counting, place_of_passes

#: The further test sets of images that have a second cue (`mmc_bench.data.contract.Dataset`).
OTHER_CUE = frozenset({"other_random_NC", "other_random_C"})


def pretrain(
    pretraining: Pretraining,
    data: ExperimentData,
    resources: Resources,
    report: Report,
    first_model: Callable[[], Backbone],
) -> tuple[Backbone, tuple[Epoch | GroupEpoch, ...], Progress, float, Budget]:
    """Train θ_C.

    The learning curve has, for each epoch, the running training loss and accuracy (on augmented images where the recipe
    augments them), and the accuracy on the NC and C test images, or on the aligned and conflicting ones.

    Parameters
    ----------
    first_model
        Returns the network before the first step, its random weights drawn from torch's global generator.

    Returns
    -------
    tuple
        The model, its learning curve, the progress, the seconds that the curve took, and the training's budget, of
        which the curve is no part.

    Raises
    ------
    UserError
        When a loss or a weight is NaN or infinite, or the images cannot be augmented.
    """
    recipe = pretraining.recipe
    _, generator = resources.seed_everything("pretraining", pretraining.seed)
    model = first_model()
    watched = {name: images.first(recipe.curve_images) for name, images in data.watched.items()}
    curve: list[Epoch | GroupEpoch] = []
    point = Epoch if {"NC", "C"} <= watched.keys() else GroupEpoch
    seconds = 0.0

    def add_to_curve(loss: torch.Tensor, accuracy: torch.Tensor) -> None:
        nonlocal seconds
        start = time.perf_counter()
        check_weights(model, "pretraining made")
        with tallied(None):
            scores = {name: evaluate(model, images).accuracy for name, images in watched.items()}
        curve.append(point(train_loss=loss.item(), train=accuracy.item(), **scores))
        seconds += time.perf_counter() - start

    progress = Progress(report)
    training = Training(
        model,
        _training_images(pretraining, data, resources),
        lr=recipe.lr,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        generator=generator,
        progress=progress,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        schedule=stepped(recipe.lr_drops, recipe.lr_drop_factor),
    )
    place = place_of_passes(model, data.pretraining.batch(slice(2))[0])
    with counting() as tally, counted_passes(place, model):
        training.fit(add_to_curve)
    return model, tuple(curve), progress, seconds, Budget(**tally.counts)


def _training_images(pretraining: Pretraining, data: ExperimentData, resources: Resources) -> CuedImages:
    """Return the pretraining set, augmented if the recipe says so, by draws that no other draw depends on.

    Raises
    ------
    UserError
        When the images cannot be augmented, or have a second cue.
    """
    images = replace(data.pretraining, role="cued")
    if pretraining.recipe.augment == "none":
        return images
    if OTHER_CUE & data.other_tests.keys():
        raise UserError(
            f"pretrain.augment = {pretraining.recipe.augment} cuts and mirrors the second cue, which is part of the "
            f"images of {pretraining.dataset.name}: set it to none"
        )
    seed = derive_seed("augmentation", pretraining.seed)
    return augmented(images, torch.Generator(device=resources.device).manual_seed(seed))
