"""How a record was made: when, in how many seconds, with what budget, and by what software on which machine."""

from datetime import datetime
from typing import Annotated, ClassVar

from pydantic import AwareDatetime, BeforeValidator, Field, FiniteFloat

from mmc_bench.results.metrics import Count, GrownPart, Number, Part

#: The checksum in a record's file (`mmc_bench.system.files.is_intact`): it is the file's, and no part of the record.
Checksum = Annotated[None, BeforeValidator(lambda _: None), Field(exclude=True, repr=False)]


class Compilation(GrownPart):
    """What became of compiling a training's passes on a GPU.

    `compiled` tells whether compiled code ran, and `why_not` why a training, the first of those that did, ran without.
    `seconds` are those of compiling. `graphs` tells whether whole steps, of the training or along paths, were replayed
    as CUDA graphs, and `why_no_graphs` what failed where they no longer were.
    """

    compiled: bool = False
    seconds: Number = 0.0
    why_not: str | None = None
    graphs: bool = False
    why_no_graphs: str | None = None

    ADDED: ClassVar[frozenset[str]] = frozenset({"graphs", "why_no_graphs"})


class Timing(GrownPart):
    """Seconds of each stage, and the training throughput.

    `images_per_second` leaves out the time of compiling, which is in `seconds`. `compilation` is there for trainings on
    a GPU.
    `parts` are the same time by what was done (`mmc_bench.system.parts`), and the worker's start-up before it; without
    the time of weights that were kept from another run. With ``--profile``, a pretraining's record has the operations
    of its forward and backward pass, and those a second of a matrix product on the same device.
    """

    started: AwareDatetime | datetime
    seconds: dict[str, Number]
    images_per_second: Annotated[FiniteFloat, Field(ge=0)] | None = None
    parts: dict[str, Number] = Field(default_factory=dict)
    gflop_per_image: Annotated[FiniteFloat, Field(gt=0)] | None = None
    peak_gflops: Annotated[FiniteFloat, Field(gt=0)] | None = None
    compilation: Compilation | None = None

    ADDED: ClassVar[frozenset[str]] = frozenset({"compilation"})

    @property
    def share_of_peak(self) -> float | None:
        """The operations of the training over those of a matrix product in the same time, where both were measured."""
        if self.images_per_second is None or self.gflop_per_image is None or self.peak_gflops is None:
            return None
        return self.images_per_second * self.gflop_per_image / self.peak_gflops


class Budget(Part):
    """What a training, or a method, looked at and computed.

    An image is visited each time that a batch of its set is made: features that are computed once visit it once.
    `cued_images` are of the pretraining set and of fully cued ones. `optimiser_steps` are those of torch's optimisers,
    of whatever weights. Passes count images: one of `forward_passes` is one image through a network as far as its last
    features, and one of `backward_passes` a gradient back to these, however deep it goes on. Passes of code that a
    method compiles itself are not counted, and one under torch.vmap counts as a single image.
    """

    clean_images: Count = 0
    cued_images: Count = 0
    validation_images: Count = 0
    optimiser_steps: Count = 0
    forward_passes: Count = 0
    backward_passes: Count = 0


class Cuda(Part):
    """What decides a GPU's numbers besides torch and the GPU: versions, and the switches in force.

    `runtime` is the CUDA that torch was built with, `driver` the kernel module, where the system says it. `compiling`
    tells whether long trainings are compiled, what came of it is in `Timing.compilation`, and `graphs` whether all that
    the worker has compiled so far is replayed as CUDA graphs. A switch that others contradict is None.
    """

    runtime: str | None
    driver: str | None
    cudnn: str | None
    matmul_tf32: bool | None
    cudnn_tf32: bool | None
    cudnn_benchmark: bool
    cudnn_deterministic: bool
    compiling: bool
    graphs: bool


class Provenance(GrownPart):
    """What made this record: software, machine, precision, seeds.

    `deterministic` tells whether torch was held to deterministic algorithms; `cuda` is there for GPUs.

    `micro_batches` is above 1 where memory ran out and batches were computed in so many parts instead. `sources` has
    the digests of the source behind the versions, by ``stage NAME`` and ``plugin KIND DISTRIBUTION:NAME``. `training`
    is what made the weights, where they were kept from another run.
    """

    mmc_bench: str
    python: str
    packages: dict[str, str]
    plugins: dict[str, str]
    git_commit: str | None
    git_dirty: bool | None
    platform: str
    device: str
    precision: Annotated[str, Field(pattern="^(fp32|bf16)$")]
    threads: Annotated[int, Field(ge=1)]
    micro_batches: Annotated[int, Field(ge=1)] = 1
    seeds: dict[str, int]
    sources: dict[str, str] = Field(default_factory=dict)
    training: "Provenance | None" = None
    deterministic: bool = False
    cuda: Cuda | None = None
    sha256: Checksum = None

    ADDED: ClassVar[frozenset[str]] = frozenset({"deterministic", "cuda"})
