"""Cut-outs on scenes: the background is the cue, and every counterfactual of an image can be rendered."""

from collections.abc import Callable

from mmc_bench import DatasetSpec, hookimpl

mmc_bench_api = 1
VERSION = 2

CUB_AND_PLACES = {"cub": ".birds:read_cub", "places": ".birds:read_places"}


@hookimpl
def register_datasets(register: Callable[[DatasetSpec], None]) -> None:
    """Register any folder of cut-outs and scenes, cats and dogs, and Waterbirds."""
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
    register(
        DatasetSpec(
            name="waterbirds",
            target=".waterbirds:Waterbirds",
            sources=("cub", "places"),
            layouts=CUB_AND_PLACES,
            num_classes=2,
            summary="CUB-200-2011's birds on Places' land and water (Sagawa et al., 2020), any scene behind any bird",
        )
    )
    register(
        DatasetSpec(
            name="waterbirds-95",
            target=".waterbirds:Waterbirds95",
            sources=("cub", "places", "waterbirds-metadata"),
            layouts={**CUB_AND_PLACES, "waterbirds-metadata": ".birds:read_metadata"},
            num_classes=2,
            summary="the same with the official pairs of bird and place, of which 95 % match in training",
        )
    )
