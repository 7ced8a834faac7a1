"""Images of which a table or their folders say label and attribute: no counterfactuals, but groups."""

from collections.abc import Callable

from mmc_bench import DatasetSpec, hookimpl

mmc_bench_api = 1
VERSION = 2


def _of_folder(name: str, target: str, layout: str, summary: str, num_classes: int | None = None) -> DatasetSpec:
    return DatasetSpec(
        name=name,
        target=f".dataset:{target}",
        sources=(name,),
        layouts={name: layout},
        splits="groups",
        num_classes=num_classes,
        summary=summary,
    )


@hookimpl
def register_datasets(register: Callable[[DatasetSpec], None]) -> None:
    """Register folders of your own, the sets that papers on group robustness report, and Coloured MNIST."""
    table, waterbirds, celeba = ".tables:read_table", ".tables:read_waterbirds", ".tables:read_celeba"
    register(_of_folder("group-labelled", "GroupLabelled", table, "any folder with a metadata.csv: filename,y,a,split"))
    register(_of_folder("pacs64", "Pacs64", table, "PACS at 64x64, style as attribute (Li et al., 2017)", 7))
    register(
        _of_folder("waterbirds-official", "Waterbirds", waterbirds, "Waterbirds as published (Sagawa et al., 2020)", 2)
    )
    register(_of_folder("celeba-blond", "CelebaBlond", celeba, "CelebA, blond hair and gender (Liu et al., 2015)", 2))
    register(
        _of_folder("urbancars", "UrbanCars", ".trees:read_urbancars", "cars, scenes and objects (Li et al., 2023)", 2)
    )
    register(_of_folder("spawrious", "Spawrious", ".trees:read_spawrious", "dogs in places (Lynch et al., 2023)", 4))
    register(
        DatasetSpec(
            name="colored-mnist",
            target=".mnist:ColouredMnist",
            sources=("mnist",),
            splits="groups",
            summary="MNIST, colour against a noisy binary label (Arjovsky et al., 2019)",
        )
    )
