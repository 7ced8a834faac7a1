"""What tables need of a cell's record, decoded without the rest: most of a record are its curves."""

from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from mmc_bench.results.jobs import Cell, PluginRef, Pretraining, adapter
from mmc_bench.results.settings import ConnectSettings

Part = TypeVar("Part", PluginRef, ConnectSettings, Pretraining)


class SplitScore(msgspec.Struct, frozen=True):
    """Accuracy (a fraction) and loss (nats) on one split."""

    accuracy: float
    loss: float


class SplitScores(msgspec.Struct, frozen=True):
    """A model's scores on the four counterfactual test splits, and on the dataset's further test sets."""

    NC: SplitScore
    C: SplitScore
    RC: SplitScore
    RI: SplitScore
    others: dict[str, SplitScore] = {}


class BarrierHeight(msgspec.Struct, frozen=True):
    """Height of a barrier in loss (nats)."""

    loss: float


class BarrierHeights(msgspec.Struct, frozen=True):
    """A path's barriers on test images, by split, and the points t that they were looked for at."""

    t: tuple[float, ...]
    barriers: dict[str, BarrierHeight]

    def height(self, split: str) -> BarrierHeight | None:
        """Return the barrier on a split; None where nothing was measured between the ends."""
        return self.barriers[split] if len(self.t) > 2 else None


class PathHeights(msgspec.Struct, frozen=True):
    """A path's barriers, under the names that they have in a `PathRecord`."""

    test: BarrierHeights


class StageSeconds(msgspec.Struct, frozen=True):
    """Seconds of each stage."""

    seconds: dict[str, float]


@dataclass(frozen=True, slots=True)
class CellScores:
    """A cell and its scores, under the names that they have in a `CellRecord`."""

    key: str
    cell: Cell
    pretrained_sha256: str
    num_classes: int
    metrics: SplitScores
    timing: StageSeconds
    paths: dict[str, PathHeights]
    worst_group: float | None


@dataclass(frozen=True, slots=True)
class ModelScores:
    """A pretraining and its scores, under the names that they have in a `PretrainRecord`."""

    key: str
    pretraining: Pretraining
    weights_sha256: str
    num_classes: int
    metrics: SplitScores
    timing: StageSeconds
    worst_group: float | None


class _CellText(msgspec.Struct, frozen=True):
    versions: dict[str, str]
    pretraining: msgspec.Raw
    method: msgspec.Raw
    connect: msgspec.Raw


class _CellContent(msgspec.Struct, frozen=True):
    key: str
    cell: _CellText
    pretraining_key: str
    pretrained_sha256: str
    num_classes: int
    metrics: SplitScores
    timing: StageSeconds
    paths: dict[str, PathHeights]
    worst_group: float | None = None


class _ModelContent(msgspec.Struct, frozen=True):
    key: str
    pretraining: msgspec.Raw
    weights_sha256: str
    num_classes: int
    metrics: SplitScores
    timing: StageSeconds
    worst_group: float | None = None


Content = TypeVar("Content", _CellContent, _ModelContent)


class ScoreReader:
    """Reads scores from the JSON of intact records, and what these share, like their pretrainings, once.

    The methods raise ValueError where what they need is missing or of another type.
    """

    def __init__(self) -> None:
        self._cells = msgspec.json.Decoder(_CellContent)
        self._models = msgspec.json.Decoder(_ModelContent)
        self._parts: dict[tuple[type, str | bytes], PluginRef | ConnectSettings | Pretraining] = {}

    def cell(self, content: bytes) -> CellScores:
        """Return the scores in a cell's record."""
        found = _decoded(self._cells, content)
        method, connect = bytes(found.cell.method), bytes(found.cell.connect)
        return CellScores(
            key=found.key,
            cell=Cell(
                versions=found.cell.versions,
                pretraining=self._part(Pretraining, found.pretraining_key, found.cell.pretraining),
                method=self._part(PluginRef, method, method),
                connect=self._part(ConnectSettings, connect, connect),
            ),
            pretrained_sha256=found.pretrained_sha256,
            num_classes=found.num_classes,
            metrics=found.metrics,
            timing=found.timing,
            paths=found.paths,
            worst_group=found.worst_group,
        )

    def model(self, content: bytes) -> ModelScores:
        """Return the scores in a pretraining's record."""
        found = _decoded(self._models, content)
        return ModelScores(
            key=found.key,
            pretraining=self._part(Pretraining, found.key, found.pretraining),
            weights_sha256=found.weights_sha256,
            num_classes=found.num_classes,
            metrics=found.metrics,
            timing=found.timing,
            worst_group=found.worst_group,
        )

    def _part(self, schema: type[Part], key: str | bytes, text: bytes | msgspec.Raw) -> Part:
        part = self._parts.get((schema, key))
        if part is None:
            kind: Any = schema
            part = self._parts[schema, key] = adapter(kind).validate_json(bytes(text))
        assert isinstance(part, schema)
        return part


def _decoded(decoder: msgspec.json.Decoder[Content], content: bytes) -> Content:
    try:
        return decoder.decode(content)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None
