"""The paths between two models, measured on sets of images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mmc_bench.data.cued_images import CuedImages
from mmc_bench.data.splits import ExperimentData
from mmc_bench.errors import UserError
from mmc_bench.landscape.alignment import Alignment, align
from mmc_bench.landscape.barriers import connectivity
from mmc_bench.landscape.paths import Path, evaluate_path, linear_path, quadratic_path
from mmc_bench.landscape.quadratic import train_bend
from mmc_bench.results.metrics import Score
from mmc_bench.results.records import AlignmentSummary, Connectivity, PathRecord
from mmc_bench.results.settings import ConnectSettings, Matching
from mmc_bench.system.parts import part
from mmc_bench.training import Progress
from mmc_bench.training.checks import check_same_architecture

#: What the training images' splits are called beside the test images'.
TRAIN = "train "

Scores = Mapping[str, Score]


@dataclass(frozen=True)
class PathImages:
    """The images that paths are measured on, and those that they are prepared with.

    Parameters
    ----------
    sets
        The test sets by name, and those of some training images as ``train NC``, ….
    batchnorm
        Training images without cues, which re-estimate BatchNorm statistics.
    matching
        Training images that permutations are matched on.
    test_scores
        Returns the scores on the test splits from those on the test sets.
    with_cues, without_cues
        Training images with and without their cues, to train the bends of quadratic paths on.
    """

    sets: Mapping[str, CuedImages]
    batchnorm: CuedImages
    matching: CuedImages
    with_cues: CuedImages
    without_cues: CuedImages
    test_scores: Callable[[Scores], Scores]


def path_images(data: ExperimentData, settings: ConnectSettings) -> PathImages:
    """Return an experiment's images as the settings want them."""
    sets = dict(data.rendered)
    if settings.train_images:
        train = {TRAIN + name: images.first(settings.train_images) for name, images in data.train_splits.items()}
        sets |= data.held(train)
    cued, cue_free = data.all_cued, data.pretraining_nc
    return PathImages(
        sets,
        cue_free.first(settings.batchnorm_images),
        (cued if settings.matching_images == "cued" else cue_free).first(settings.batchnorm_images),
        cued,
        cue_free,
        data.test_scores,
    )


def measure_paths(
    first: nn.Module,
    second: nn.Module,
    images: PathImages,
    settings: ConnectSettings,
    ends: tuple[Scores, Scores],
    generator_of: Callable[[str], torch.Generator],
    progress: Progress,
) -> dict[str, PathRecord]:
    """Return the curves on all sets along each path of the settings, from `first` (t = 0) to `second` (t = 1).

    Parameters
    ----------
    ends
        The scores of the two models as ends of a path (`end_scores`), on all sets.
    generator_of
        Returns the source of randomness of a path, by its name, so that no path depends on which others are measured.

    Raises
    ------
    UserError
        When the architectures differ, cannot be aligned, or alignment made another function.
    """
    check_same_architecture(first, second)
    records: dict[str, PathRecord] = {}
    for name in settings.paths:
        start, alignment, bend_loss = first, None, None
        if name == "linear":
            path: Path = linear_path(first, second)
        elif name == "permuted":
            aligned = _aligned(first, second, images, settings.matching)
            start, alignment = aligned.model, summary_of(aligned, settings.matching)
            path = linear_path(start, second)
        else:
            seen = images.with_cues if name == "quadratic" else images.without_cues
            losses: list[float] = []
            own = Progress(lambda event, losses=losses: losses.extend(_loss_in(event)))  # type: ignore[misc]
            with part("training"):
                bend = train_bend(first, second, seen, settings.quadratic, generator_of(name), own)
            progress.include(own)
            path, bend_loss = quadratic_path(first, bend, second), tuple(losses)
        ts, along = evaluate_path(path, second, images.sets, images.batchnorm, settings.points, ends, progress, start)
        records[name] = PathRecord(
            test=connectivity(ts, _of_test(along, images.test_scores)),
            train=_of_train(ts, along),
            alignment=alignment,
            bend_loss=bend_loss,
        )
    return records


def _loss_in(event: Mapping[str, Any]) -> list[float]:
    """Return the loss of an event that ends an epoch."""
    return [event["loss"]] if "loss" in event else []


def _aligned(first: nn.Module, second: nn.Module, images: PathImages, matching: Matching) -> Alignment:
    aligned = align(first, second, images.matching, criterion=matching)
    if not aligned.verified:
        raise UserError(
            f"the permuted network does not compute what the network did (outputs differ by "
            f"{aligned.difference:.0e} of the largest): leave `permuted` out of the paths, and report it"
        )
    return aligned


def _of_test(along: Mapping[str, Sequence[Score]], test_scores: Callable[[Scores], Scores]) -> dict[str, list[Score]]:
    """Return the scores along a path on each test split."""
    points = [test_scores(dict(zip(along, of_point, strict=True))) for of_point in zip(*along.values(), strict=True)]
    return {split: [point[split] for point in points] for split in points[0]}


def _of_train(ts: list[float], along: dict[str, list[Score]]) -> Connectivity | None:
    curves = {name.removeprefix(TRAIN): scores for name, scores in along.items() if name.startswith(TRAIN)}
    return connectivity(ts, curves) if curves else None


def summary_of(alignment: Alignment, matching: str) -> AlignmentSummary:
    """Return an alignment as a record keeps it: how many units of each group moved, and what stayed and why."""
    return AlignmentSummary(
        matching=matching,
        groups={
            group.name: (int((alignment.permutations[group.name] != torch.arange(group.size)).sum()), group.size)
            for group in alignment.groups
        },
        pinned={f"{pinned.weight}[{pinned.axis}]": pinned.reason for pinned in alignment.groups.pinned}
        | dict.fromkeys(alignment.unseen, "no place in the network shows its units"),
        difference=alignment.difference,
        verified=alignment.verified,
    )
