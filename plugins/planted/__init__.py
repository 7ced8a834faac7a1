"""Cues of several kinds, planted in any images, one or two at a time."""

from collections.abc import Callable

from mmc_bench import DatasetSpec, hookimpl

mmc_bench_api = 1
VERSION = 1

KINDS = {
    "box": "a small box whose place tells the class",
    "patch": "a square in a corner whose colour tells the class",
    "border": "a frame whose colour tells the class",
    "texture": "a blended texture that tells the class",
    "frequency": "a faint wave whose direction and length tell the class",
}


@hookimpl
def register_datasets(register: Callable[[DatasetSpec], None]) -> None:
    """Register a dataset for each kind of cue, and those with two."""
    for kind, what in KINDS.items():
        register(
            DatasetSpec(
                name=f"images-{kind}",
                target=".dataset:Planted",
                sources=("images",),
                defaults={"cue": kind},
                summary=f"your images (--data images=DIR), with {what}",
            )
        )
    register(
        DatasetSpec(
            name="images-two-cues",
            target=".two_cues:TwoCuesInImages",
            sources=("images",),
            summary="your images (--data images=DIR), with two cues: does removing one make the other grow?",
        )
    )
    register(
        DatasetSpec(
            name="digits-two-cues",
            target=".two_cues:TwoCuesInDigits",
            sources=("digits",),
            num_classes=10,
            summary="UCI digits at 16x16 with two cues; embedded, no download",
        )
    )
