"""Everything that is measured of one model's hold on the cue."""

import torch

from mmc_bench.data.contract import has_cue
from mmc_bench.data.cued_images import CuedImages
from mmc_bench.data.splits import ExperimentData
from mmc_bench.mechanisms.attribution import attribution
from mmc_bench.mechanisms.reading import readability
from mmc_bench.mechanisms.stages import stage_features, stages_of
from mmc_bench.results.probes import Hold
from mmc_bench.training import Backbone
from mmc_bench.training.evaluate import predictions_on
from mmc_bench.training.precision import full_precision

#: Training images that probes are fitted to, and test images of each measurement, at most.
MOST_IMAGES = 2000


def measure_hold(model: Backbone, data: ExperimentData) -> Hold:
    """Return what a model has left of an experiment's cue, in float32 whatever the run's precision.

    Raises
    ------
    NonFiniteLossError
        When the model's loss is NaN or infinite.
    """
    train = {name: data.train_splits[name].first(MOST_IMAGES) for name in ("NC", "RC")}
    test = {name: data.splits[name].first(MOST_IMAGES) for name in ("NC", "C", "RC")}
    (known, classes), (asked, wanted), presence = _to_read(train, test, data)
    stages = stages_of(model, known)
    read = readability(stage_features(model, known, stages), classes, stage_features(model, asked, stages), wanted)
    looks = attribution(model, test["C"], test["NC"])
    return Hold(
        read=read,
        classes=len(classes.unique()),
        chance=wanted.unique(return_counts=True)[1].max().item() / len(wanted),
        presence=presence,
        flips=flips(model, test["C"], test["RC"], data),
        attribution=looks.share,
        cue_pixels=looks.pixels,
    )


Read = tuple[CuedImages, torch.Tensor]


def _to_read(
    train: dict[str, CuedImages], test: dict[str, CuedImages], data: ExperimentData
) -> tuple[Read, Read, bool]:
    """Return the images that probes are fitted to and tested on, their classes, and whether these are cue and none.

    All carry random cues, which tell nothing of the label. Where codes make no classes, half of the images carry none.
    """
    pair = train["RC"], test["RC"]
    classes = [data.cue_classes(images.cues) for images in pair]
    if classes[0] is not None and classes[1] is not None and len(classes[0].unique()) > 1:
        return (pair[0], classes[0]), (pair[1], classes[1]), False
    half = [half_cued(images["RC"], images["NC"]) for images in (train, test)]
    known, asked = ((images, has_cue(images.cues).long()) for images in half)
    return known, asked, True


def half_cued(cued: CuedImages, cue_free: CuedImages) -> CuedImages:
    """Return a set of images of which every second one carries no cue, so that any stretch of it has both."""
    rows = torch.arange(len(cued))
    rows[1::2] += len(cued)
    return cued.joined(cue_free).subset(rows)


def flips(model: Backbone, cued: CuedImages, swapped: CuedImages, data: ExperimentData) -> float:
    """Return the share of images whose predicted class changes when their cue is replaced with another.

    Parameters
    ----------
    cued, swapped
        The same images with their own cues and with random ones; those whose random cue is their own do not count.
    """
    with full_precision(cued.labels.device):
        predictions = predictions_on(model, {"C": cued, "RC": swapped})
    own, other = (data.cue_classes(images.cues) for images in (cued, swapped))
    if own is None or other is None:
        own, other = cued.cues, swapped.cues
    differs = (own != other).reshape(len(cued), -1).any(1)
    flipped = (predictions["C"] != predictions["RC"])[differs]
    return flipped.cpu().double().mean().item() if len(flipped) else 0.0
