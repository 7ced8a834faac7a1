"""Vectors with two attributes of different complexity, either of which tells the label."""

from collections.abc import Callable

from mmc_bench import DatasetSpec, hookimpl

mmc_bench_api = 1


@hookimpl
def register_datasets(register: Callable[[DatasetSpec], None]) -> None:
    """Register the dataset, and the two in whose training samples one attribute alone is predictive."""
    register(
        DatasetSpec(
            name="k-complex",
            target=".dataset:KComplex",
            summary="vectors: an attribute of complexity 4, a cue of complexity 0 (Lubana et al., 2023, App. F.3)",
        )
    )
    for predictive, complexity in (("cue", 0), ("content", 4)):
        register(
            DatasetSpec(
                name=f"k-complex-{complexity}",
                target=".dataset:KComplex",
                defaults={"predictive": predictive},
                summary=f"k-complex trained with the attribute of complexity {complexity} alone; the same test samples",
            )
        )
