"""Cut-outs on scenes: the background is the cue, and every counterfactual of an image can be rendered."""

from collections.abc import Callable

from mmc_bench import DatasetSpec, hookimpl

mmc_bench_api = 1
VERSION = 1


@hookimpl
def register_datasets(register: Callable[[DatasetSpec], None]) -> None:
    """Register any folder of cut-outs and scenes, and cats and dogs."""
    register(
        DatasetSpec(
            name="foregrounds",
            target=".dataset:Foregrounds",
            sources=("foregrounds",),
            layouts={"foregrounds": ".layout:read_described"},
            summary="your own cut-outs on your own scenes, as foregrounds.yaml pairs them",
        )
    )
    register(
        DatasetSpec(
            name="catdog-scenes",
            target=".dataset:CatDogScenes",
            sources=("catdog-scenes",),
            layouts={"catdog-scenes": ".layout:read_catdog"},
            num_classes=2,
            summary="cats in forests and dogs by the sea, 64x64",
        )
    )
