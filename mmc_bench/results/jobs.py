"""Jobs as plain data: what is pretrained, fine-tuned and compared, and the keys that name the results.

The classes are frozen dataclasses of the standard library, so that importing them is cheap. Their constraints are
checked where they are fields of a pydantic model, as in records and suites, or by `adapter`.
"""

from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, MinLen, Predicate

from mmc_bench.results.canonical import Plain, key_of
from mmc_bench.results.settings import ConnectSettings, DataSettings, Fraction, Recipe

if TYPE_CHECKING:
    from pydantic import TypeAdapter


def _of(*stages: str) -> Predicate:
    """Return the constraint that a mapping has the versions of these stages."""
    return Predicate(lambda versions: versions.keys() == {*stages})


@dataclass(frozen=True, kw_only=True)
class PluginRef(Plain):
    """A dataset, backbone or method: who offers it, in which version, with which explicit parameters.

    `weights` is the SHA-256 of the file whose weights a backbone starts from. The parameter of that name, the file's
    place, is no part of the identity.
    """

    name: str
    distribution: str
    version: str
    parameters: dict[str, Any] = field(default_factory=dict)
    weights: str | None = field(default=None, metadata={"added": True})

    def members(self) -> dict[str, Any]:
        """Return the fields as they are, but for where the weights lie."""
        members = super().members()
        if self.weights is not None:
            members["parameters"] = {name: value for name, value in self.parameters.items() if name != "weights"}
        return members


@dataclass(frozen=True, kw_only=True)
class OwnWeights(Plain):
    """A checkpoint trained outside mmc-bench: its name in tables, and the SHA-256 of its file."""

    name: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Pretraining(Plain):
    """One pretrained model θ_C: everything that decides its weights and scores.

    `versions` are those of the stages that it rests on. `cue_rate` is None of a dataset that has groups in place of
    counterfactuals, whose images come as they are. With a `checkpoint`, the weights come from that file and nothing is
    pretrained; the cue rate is that of the cued images that methods are given. A `start` is the weights that the
    pretraining begins with.
    """

    versions: Annotated[dict[str, str], _of("pretrain", "score")]
    dataset: PluginRef
    images: dict[str, str]
    data: DataSettings
    backbone: PluginRef
    cue_rate: Fraction | None
    recipe: Recipe
    seed: Annotated[int, Ge(0)]
    checkpoint: OwnWeights | None = field(default=None, metadata={"added": True})
    start: OwnWeights | None = field(default=None, metadata={"added": True})

    @property
    def network(self) -> str:
        """The backbone's name, and that of the weights that it has or starts from: for people, and for tables."""
        if self.checkpoint is not None:
            return f"{self.backbone.name} ({self.checkpoint.name})"
        return self.backbone.name if self.start is None else f"{self.backbone.name} (from {self.start.name})"

    @cached_property
    def weights_key(self) -> str:
        """SHA-256 that names the weights: of all that decides them, which scoring does not."""
        return key_of({"stage": "pretrain", "version": self.versions["pretrain"], **self.parts("versions")})

    @cached_property
    def key(self) -> str:
        """SHA-256 that names this pretraining's record."""
        return key_of({"stage": "pretraining", "weights": self.weights_key, "score": self.versions["score"]})

    @property
    def data_seed(self) -> int:
        """The seed that the sets and splits are drawn from."""
        return self.seed if self.data.seed is None else self.data.seed

    @property
    def label(self) -> str:
        """One line for people."""
        return f"{' '.join(self.place)} seed {self.seed}"

    @property
    def place(self) -> tuple[str, str, str]:
        """The dataset, backbone and cue rate, for people."""
        return self.dataset.name, self.network, rate_in_words(self.cue_rate)


@dataclass(frozen=True, kw_only=True)
class _FineTuning(Plain):
    """One method applied to one pretrained model."""

    versions: dict[str, str]
    pretraining: Pretraining
    method: PluginRef

    @cached_property
    def weights_key(self) -> str:
        """SHA-256 that names the fine-tuned weights: of all that decides them, which scores and paths do not."""
        return key_of(
            {
                "stage": "fine-tune",
                "version": self.versions["fine-tune"],
                "pretrained": self.pretraining.weights_key,
                "method": self.method,
            }
        )

    @property
    def label(self) -> str:
        """One line for people."""
        return f"{self.pretraining.label} · {self.method.name}"


@dataclass(frozen=True, kw_only=True)
class Cell(_FineTuning):
    """One method applied to one pretrained model, scored on test images and connected with it.

    `selection` is the key of the `Selection` that its parameters come from, None of published defaults. It decides no
    number, and is no part of the key.
    """

    versions: Annotated[dict[str, str], _of("fine-tune", "score", "connect")]
    connect: ConnectSettings
    selection: str | None = None

    @cached_property
    def key(self) -> str:
        """SHA-256 that names this cell's record."""
        return key_of(
            {
                "stage": "cell",
                **self.versions,
                "pretraining": self.pretraining.key,
                "method": self.method,
                "paths": self.connect,
            }
        )

    @property
    def label(self) -> str:
        """One line for people."""
        return f"{super().label}{' (tuned)' if self.selection else ''}"


@dataclass(frozen=True, kw_only=True)
class Trial(_FineTuning):
    """One set of parameters of a method tried on a pretrained model, and scored on validation images alone.

    `number` is for people, and no part of the key: two trials with equal parameters are one.
    """

    versions: Annotated[dict[str, str], _of("fine-tune", "score")]
    number: Annotated[int, Ge(0)] = 0

    @cached_property
    def key(self) -> str:
        """SHA-256 that names this trial's record."""
        return key_of({"stage": "trial", **self.versions, "pretraining": self.pretraining.key, "method": self.method})

    @property
    def label(self) -> str:
        """One line for people."""
        return f"{super().label} trial {self.number}"


PUBLISHED = "published"

#: Rules, and the validation splits whose worst accuracy each maximises. `clean` has what a user has who knows nothing
#: of the cue; `counterfactual` is told the cue, as papers on group robustness assume.
RULES = {"clean": ("NC",), "counterfactual": ("NC", "C", "RC")}

#: The same rules where validation images come in groups: their mean, or the worst group.
RULES_OF_GROUPS = {"clean": ("all",), "counterfactual": ("worst_group",)}

#: What the parameters of a ranked cell can be: those that a method's author published, or those that a rule chose.
PROTOCOLS = (PUBLISHED, *RULES)


@dataclass(frozen=True, kw_only=True)
class Selection(Plain):
    """The trials of one method in one setting, which its parameters there are chosen by.

    `pretraining` is that of the first tuning seed; `trials` are the keys of each trial's jobs, one a seed, and trial 0
    has the parameters of `method`, the published ones.
    """

    pretraining: Pretraining
    method: PluginRef
    seeds: Annotated[tuple[int, ...], MinLen(1)]
    trials: Annotated[tuple[tuple[str, ...], ...], MinLen(1)]

    @cached_property
    def key(self) -> str:
        """SHA-256 that names this selection's record."""
        return key_of({"stage": "selection", "seeds": self.seeds, "trials": self.trials})


@dataclass(frozen=True, kw_only=True)
class Pair(Plain):
    """Two pretrained models of one architecture, and how the paths between them are measured.

    `data` is the experiment on whose data they are compared: that of the first, unless a suite says otherwise.
    """

    versions: Annotated[dict[str, str], _of("connect")]
    first: Pretraining
    second: Pretraining
    data: Pretraining
    connect: ConnectSettings

    @cached_property
    def key(self) -> str:
        """SHA-256 that names this pair's record."""
        return key_of(
            {
                "stage": "pair",
                **self.versions,
                "first": self.first.key,
                "second": self.second.key,
                "data": self.data.key,
                "paths": self.connect,
            }
        )

    @property
    def label(self) -> str:
        """One line for people: the second model where it differs from the first."""
        first, second = (_places(end) for end in (self.first, self.second))
        other = ", ".join(f"{name} {second[name]}" for name in second if first[name] != second[name])
        return f"{self.first.label} – {other or 'another recipe'}"


Job = Pretraining | Cell | Trial | Pair


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Plain):
    """Trained weights, whoever trained them: their checksum (`mmc_bench.results.weights`), and their record's key."""

    label: str
    weights_sha256: str
    record: str | None = None


@dataclass(frozen=True, kw_only=True)
class Connection(Plain):
    """Two checkpoints of one architecture, and how the paths between them are measured.

    `experiment` describes the data that they are compared on, and the backbone that they are loaded into.
    """

    versions: Annotated[dict[str, str], _of("connect")]
    first: Checkpoint
    second: Checkpoint
    experiment: Pretraining
    connect: ConnectSettings

    @cached_property
    def key(self) -> str:
        """SHA-256 that names this connection's record; what weights are called, and how they were trained, is no part.

        Neither is the cue rate: the test splits and the training images along a path all carry cues or none.
        """
        return key_of(
            {
                "stage": "connection",
                **self.versions,
                "weights": [self.first.weights_sha256, self.second.weights_sha256],
                "experiment": self.experiment.identity("versions", "cue_rate", "recipe"),
                "paths": self.connect,
            }
        )


@dataclass(frozen=True, kw_only=True)
class Probe(Plain):
    """A model whose hold on the cue is measured, and the experiment on whose images.

    `experiment` describes the data, and the backbone that the weights are loaded into.
    """

    versions: Annotated[dict[str, str], _of("probe")]
    model: Checkpoint
    experiment: Pretraining

    @cached_property
    def key(self) -> str:
        """SHA-256 that names this probe's record; what weights are called, and how they were trained, is no part."""
        return key_of(
            {
                "stage": "probe",
                **self.versions,
                "weights": self.model.weights_sha256,
                "experiment": self.experiment.identity("versions", "cue_rate", "recipe", "checkpoint"),
            }
        )


def _places(end: Pretraining) -> dict[str, str]:
    return {
        "dataset": end.dataset.name,
        "backbone": end.network,
        "cue rate": f"{end.cue_rate:g}" if end.cue_rate is not None else "groups",
        "seed": str(end.seed),
    }


def rate_in_words(cue_rate: float | None) -> str:
    """Return ``"cue rate 0.9"``, or ``"groups"`` where a dataset has these in place of cues."""
    return "groups" if cue_rate is None else f"cue rate {cue_rate:g}"


def kind_of(described: Job | Selection | Connection | Probe) -> str:
    """Return the kind of what a record is of, such as ``"pretraining"``, ``"cell"`` or ``"probe"``."""
    return type(described).__name__.lower()


@cache
def adapter(part: Any) -> "TypeAdapter[Any]":
    """Return what makes a job, or a part of one, from plain data or JSON, and checks it."""
    from pydantic import TypeAdapter

    return TypeAdapter(part)


def references_of(job: Job | Connection | Probe) -> list[tuple[str, PluginRef]]:
    """Return the kind and the reference of each plugin that a job rests on, each once."""
    if isinstance(job, Cell | Trial):
        return [*references_of(job.pretraining), ("method", job.method)]
    if isinstance(job, Pretraining):
        return [("dataset", job.dataset), ("backbone", job.backbone)]
    if isinstance(job, Connection | Probe):
        return references_of(job.experiment)
    found = {(kind, plugin.canonical): plugin for end in models_of(job) for kind, plugin in references_of(end)}
    return [(kind, plugin) for (kind, _), plugin in found.items()]


def models_of(job: Job) -> tuple[Pretraining, ...]:
    """Return the pretrainings that must be done before a job."""
    if isinstance(job, Pair):
        return (job.first, job.second)
    return (job.pretraining,) if isinstance(job, Cell | Trial) else ()
