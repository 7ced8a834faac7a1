"""What tables need of a cell's record, read without the rest: most of a record are its curves."""

from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter

from mmc_bench.results.jobs import Cell, ConnectSettings, PluginRef, Pretraining

Part = TypeVar("Part", PluginRef, ConnectSettings)


@dataclass(frozen=True, slots=True)
class SplitScore:
    """Accuracy (a fraction) and loss (nats) on one split."""

    accuracy: float
    loss: float


@dataclass(frozen=True, slots=True)
class SplitScores:
    """A model's scores on the four counterfactual test splits."""

    NC: SplitScore
    C: SplitScore
    RC: SplitScore
    RI: SplitScore


@dataclass(frozen=True, slots=True)
class Height:
    """Height of a barrier in loss (nats)."""

    loss: float


@dataclass(frozen=True, slots=True)
class Heights:
    """The barriers on the straight line between the pretrained and the fine-tuned model, by split."""

    barriers: dict[str, Height]


@dataclass(frozen=True, slots=True)
class Seconds:
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
    timing: Seconds
    connectivity: Heights


@dataclass(frozen=True, slots=True)
class ModelScores:
    """A pretraining and its scores, under the names that they have in a `PretrainRecord`."""

    key: str
    pretraining: Pretraining
    weights_sha256: str
    num_classes: int
    metrics: SplitScores
    timing: Seconds


class ScoreReader:
    """Reads scores from the text of records, and what these share, like their pretrainings, once.

    The text is JSON that is indented by one space and known to be intact: what is not needed is not looked at. The
    methods raise ValueError where it is laid out in another way.
    """

    def __init__(self) -> None:
        kinds: tuple[type, ...] = (SplitScores, Seconds, Heights)
        self._readers: dict[type, TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in kinds}
        self._parts: dict[tuple[type, bytes], Any] = {}

    def cell(self, content: bytes) -> CellScores:
        """Return the scores in a cell's record."""
        cell = _member(content, b"cell")
        heights = b'{"barriers": %s}' % _member(_member(content, b"connectivity"), b"barriers", 2)
        return CellScores(
            key=_text(content, b"key"),
            cell=Cell(
                pretraining=self._pretraining(_member(content, b"pretraining_key"), _member(cell, b"pretraining", 2)),
                method=self._part(PluginRef, _member(cell, b"method", 2)),
                connect=self._part(ConnectSettings, _member(cell, b"connect", 2)),
            ),
            pretrained_sha256=_text(content, b"pretrained_sha256"),
            connectivity=self._readers[Heights].validate_json(heights),
            **self._numbers(content),
        )

    def model(self, content: bytes) -> ModelScores:
        """Return the scores in a pretraining's record."""
        return ModelScores(
            key=_text(content, b"key"),
            pretraining=self._pretraining(_member(content, b"key"), _member(content, b"pretraining")),
            weights_sha256=_text(content, b"weights_sha256"),
            **self._numbers(content),
        )

    def _numbers(self, content: bytes) -> dict[str, Any]:
        return {
            "num_classes": int(_member(content, b"num_classes")),
            "metrics": self._readers[SplitScores].validate_json(_member(content, b"metrics")),
            "timing": self._readers[Seconds].validate_json(_member(content, b"timing")),
        }

    def _pretraining(self, key: bytes, text: bytes) -> Pretraining:
        if (Pretraining, key) not in self._parts:
            self._parts[Pretraining, key] = Pretraining.model_validate_json(text)
        pretraining: Pretraining = self._parts[Pretraining, key]
        return pretraining

    def _part(self, schema: type[Part], text: bytes) -> Part:
        if (schema, text) not in self._parts:
            self._parts[schema, text] = schema.model_validate_json(text)
        part: Part = self._parts[schema, text]
        return part


def _member(text: bytes, name: bytes, depth: int = 1) -> bytes:
    """Return the text of a JSON object's member, where `depth` spaces indent members, and more what they hold.

    No string can hold the line's end that a member begins with.
    """
    line = b"\n" + b" " * depth + b'"'
    opening = line + name + b'": '
    start = text.index(opening) + len(opening)
    end = text.find(line, start)
    return text[start:end].rstrip(b",") if end >= 0 else text[start : text.rstrip().rindex(b"\n")]


def _text(content: bytes, name: bytes) -> str:
    return _member(content, name).strip(b'"').decode()
