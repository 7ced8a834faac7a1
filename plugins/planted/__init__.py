"""Cues of several kinds, planted in any images."""

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
    """Register a dataset for each kind of cue."""
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
