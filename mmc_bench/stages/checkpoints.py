"""Checkpoints that a user names: where their weights lie, and what their records say of them."""

import copy
import hashlib
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmc_bench.errors import UserError, message_of
from mmc_bench.plugin.in_memory_backbones import Architecture
from mmc_bench.results.codec import read_record
from mmc_bench.results.jobs import Checkpoint, OwnWeights, PluginRef, Pretraining
from mmc_bench.results.records import CellRecord, PretrainRecord
from mmc_bench.results.settings import ConnectSettings, DataSettings, PathName
from mmc_bench.results.store import WEIGHTS_FOLDERS, Store
from mmc_bench.results.weights import Weights, checksum_of, decoded_weights
from mmc_bench.suites.suite import Suite
from mmc_bench.system.files import read_whole, write_whole
from mmc_bench.system.streams import printable

if TYPE_CHECKING:
    import torch

Tensors = Mapping[str, "torch.Tensor"]

#: The first digits of a key that must be given.
FEWEST_DIGITS = 6
KEY = re.compile(r"[0-9a-fA-F]{1,64}")

#: How files of torch.save are called.
TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")

#: What training scripts call the weights among what else they save.
USUAL_NAMES = ("state_dict", "model_state_dict", "model", "net", "network", "weights")

#: The paths that are measured by default.
PATHS: tuple[PathName, ...] = ("linear", "permuted")


@dataclass(frozen=True)
class Source:
    """What one argument points at: a name for files, the weights' file, and their record, if there is one."""

    name: str
    weights: Path
    record: PretrainRecord | CellRecord | None = None

    @property
    def pretraining(self) -> Pretraining | None:
        """The experiment that the weights come from, where their record tells."""
        if isinstance(self.record, CellRecord):
            return self.record.cell.pretraining
        return self.record.pretraining if self.record else None

    @property
    def label(self) -> str:
        """One line for people."""
        if self.record is None:
            return str(self.weights)
        job = self.record.cell if isinstance(self.record, CellRecord) else self.record.pretraining
        return f"{job.label} ({self.record.key[:8]})"

    def read(self) -> tuple[Checkpoint, "dict[str, torch.Tensor]"]:
        """Return the checkpoint and its weights by name.

        Raises
        ------
        UserError
            When the file cannot be read, is no safetensors file, or is not the one that the record names.
        """
        try:
            content = read_whole(self.weights)
        except FileNotFoundError:
            raise UserError(f"there is no file {self.weights}{self._remedy}") from None
        except OSError as error:
            raise UserError(f"{self.weights} cannot be read: {error.strerror}") from None
        weights = decoded_weights(content)
        if weights is None and self.record is None:
            if self.weights.suffix not in TORCH_SUFFIXES:
                raise UserError(f"{self.weights} is no safetensors file")
            tensors = _weights_in(_unpickled(content, self.weights), self.weights)
            weights = Weights(tensors, checksum_of(tensors))
        if weights is None or (self.record and weights.sha256 != self.record.weights_sha256):
            raise UserError(f"weights file {self.weights} does not match its record's checksum{self._remedy}")
        key = self.record.key if self.record else None
        return Checkpoint(label=self.label, weights_sha256=weights.sha256, record=key), weights.tensors

    @property
    def _remedy(self) -> str:
        if self.record is None:
            return ""
        option = " with --keep-weights" if isinstance(self.record, CellRecord) else ""
        return f": delete the record {self.record.key[:8]} and run its suite again{option}"


def own_weights(text: str) -> tuple[OwnWeights, Path]:
    """Return the weights that ``"FILE"`` or ``"NAME=FILE"`` names, and their file.

    Raises
    ------
    UserError
        When the file cannot be read.
    """
    path, name = Path(text), ""
    for equals in re.finditer("=", text):  # a file's own name may have some
        if path.is_file():
            break
        path, name = Path(text[equals.end() :]), text[: equals.start()]
    try:
        with path.open("rb") as content:
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"checkpoint {text} cannot be read: {error.strerror}") from None
    return OwnWeights(name=printable(name) or printable(path.stem), sha256=sha256), path.resolve()


def read_own(path: Path, own: OwnWeights) -> "dict[str, torch.Tensor]":
    """Return the weights in a file, by the names that a network gives them.

    It is a safetensors file, or one of ``torch.save`` with a ``state_dict``, alone or under a usual name in what else a
    training script keeps. Nothing but tensors is unpickled.

    Raises
    ------
    UserError
        When the file cannot be read, has changed, or holds no weights.
    """
    try:
        content = read_whole(path)
    except OSError as error:
        raise UserError(f"checkpoint {path} cannot be read: {error.strerror}") from None
    if hashlib.sha256(content).hexdigest() != own.sha256:
        raise UserError(f"checkpoint {path} is no longer the file that it was when the run began")
    weights = decoded_weights(content)
    kept = _unpickled(content, path) if weights is None else weights.tensors
    return _weights_in(kept, path)


def _unpickled(content: bytes, path: Path) -> Any:
    """Return what a file of ``torch.save`` holds."""
    import torch

    from mmc_bench.training.memory import is_out_of_memory

    if not content.startswith((b"PK", b"\x80")):  # those of today, and of before torch 1.6
        raise UserError(f"checkpoint {path} is neither a safetensors file nor one of torch.save")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is no weights is said below
        try:
            return torch.load(BytesIO(content), map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many types for damaged files and for objects that are not tensors
            if is_out_of_memory(error):
                raise
            reason = re.search(r"Unsupported (?:global|class|operand)[^.]*|WeightsUnpickler error: [^.]*", str(error))
            why = reason[0].strip() if reason else message_of(error).partition(". ")[0][:200]
            raise UserError(
                f"checkpoint {path} holds more than tensors, or is damaged ({why}): save model.state_dict()"
            ) from None


def _weights_in(kept: Any, path: Path | str) -> "dict[str, torch.Tensor]":
    """Return the weights in what was kept, on the CPU, each in memory of its own."""
    import torch

    waiting = [kept]
    while waiting:
        found = waiting.pop(0)
        if isinstance(found, Mapping) and found:
            if all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in found.items()):
                return {name: _dense(value, name, path) for name, value in found.items()}
            waiting += [found[name] for name in USUAL_NAMES if name in found]
    among = f" among {', '.join(map(str, [*kept][:8]))}" if isinstance(kept, Mapping) and kept else ""
    raise UserError(f"checkpoint {path} holds no state_dict{among}: save model.state_dict()")


def _dense(weight: "torch.Tensor", name: str, path: Path | str) -> "torch.Tensor":
    """Return a copy of a weight; refuse what is no dense tensor of real numbers."""
    import torch

    kinds = {"complex": weight.is_complex(), "without values": weight.is_meta, "quantised": weight.is_quantized}
    kinds["sparse"] = weight.layout != torch.strided
    for kind in (kind for kind, applies in kinds.items() if applies):
        raise UserError(f"checkpoint {path}: its weight {name!r} is {kind}, and must be a dense tensor of real numbers")
    return weight.detach().cpu().contiguous().clone()


def file_of_kept(folder: Path, sha256: str) -> Path:
    """Return the file into which `kept_checkpoint` writes weights of a SHA-256."""
    return folder / f"{sha256[:16]}.safetensors"


def kept_checkpoint(model: "torch.nn.Module | Mapping[str, Any]", folder: Path) -> str:
    """Write a network's weights into a folder, and return the name and the file as ``"NAME=FILE"``.

    Parameters
    ----------
    model
        A network, ``{"NAME": network}``, or a ``state_dict``.

    Raises
    ------
    UserError
        When it is nothing of these, or the file cannot be written.
    """
    from safetensors.torch import save

    name, network = _named(model)
    weights = model if network is None else network.state_dict()
    if not isinstance(weights, Mapping):
        raise UserError(f"checkpoint is a {type(model).__name__}: give a file, a torch.nn.Module or its state_dict")
    content = save(_weights_in(weights, "that was given"))
    file = file_of_kept(folder, hashlib.sha256(content).hexdigest())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(file, content)
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}") from None
    return f"{name}={file}"


def architecture_of(model: Any) -> Architecture | None:
    """Return the architecture of a network, or of the one in ``{"NAME": network}``; of weights alone there is none.

    Raises
    ------
    UserError
        When the network cannot be copied.
    """
    _, network = _named(model)
    if network is None:
        return None
    try:
        return Architecture(copy.deepcopy(network).cpu().float())
    except Exception as error:  # whatever a network's own members raise
        raise UserError(f"{type(network).__name__} cannot be copied: {message_of(error)[:200]}") from None


def _named(model: Any) -> tuple[str, "torch.nn.Module | None"]:
    """Return a network, without what wraps it, and its name; None of weights alone."""
    import torch

    from mmc_bench.training.returned import unwrapped

    if isinstance(model, Mapping) and len(model) == 1:
        ((name, network),) = model.items()
        if isinstance(network, torch.nn.Module):
            return str(name), _named(network)[1]
    network = unwrapped(model)
    return (type(network).__name__, network) if isinstance(network, torch.nn.Module) else ("weights", None)


def locate(text: str, store: Store) -> Source:
    """Return what `text` points at: a record's key or the beginning of one, its JSON file, or a safetensors file.

    Raises
    ------
    UserError
        When it is nothing of these, points at several records, or at one without weights.
    """
    path = Path(text)
    if path.suffix in (".safetensors", *TORCH_SUFFIXES):
        return Source(path.stem, path)
    if path.suffix != ".json" and not KEY.fullmatch(text):
        advice = ": save the weights with safetensors.torch.save_file or torch.save" if path.exists() else ""
        raise UserError(f"{text} is no key of a record, no record's .json file and no file of weights{advice}")
    file = path if path.suffix == ".json" else _file_of_key(text.lower(), store)
    record = read_record(file)
    if not isinstance(record, (PretrainRecord, CellRecord)):
        raise UserError(
            f"{text} is the record of a {record.kind}, which has no weights of its own: "
            "give the key of a pretraining or a cell"
        )
    if record.weights_sha256 is None:
        assert isinstance(record, CellRecord)
        raise UserError(
            f"cell {record.key[:8]} ({record.cell.label}) keeps no weights: "
            f"delete its record, {file}, and run its suite again with --keep-weights"
        )
    job = record.cell if isinstance(record, CellRecord) else record.pretraining
    return Source(record.key[:8], Store(file.parent.parent).weights_file(job), record)


def _file_of_key(key: str, store: Store) -> Path:
    if len(key) < FEWEST_DIGITS:
        raise UserError(f"{key} is too short to name a record: give {FEWEST_DIGITS} digits of its key or more")
    files = store.files_of_keys(key)
    if not files:
        folders = [store.root / name for name in WEIGHTS_FOLDERS.values()]
        weights = [file for folder in folders for file in sorted(folder.glob(f"{key}*.safetensors"))]
        sentence = f"no record in {store.root} has a key that begins with {key}"
        if weights:
            sentence += f", but a file of weights does: give it, {weights[0]}, with --backbone and --dataset"
        raise UserError(sentence)
    if len(files) > 1:
        found = ", ".join(f"{file.parent.name}/{file.stem}" for file in files)
        raise UserError(f"{len(files)} records in {store.root} have keys that begin with {key}: {found}")
    return files[0]


def experiment_suite(ends: Sequence[Source], dataset: str | None, backbone: str | None) -> Suite:
    """Return a suite without methods whose only pretraining describes the ends' data and backbone.

    Both come from the first end that has a record, unless they are given.

    Raises
    ------
    UserError
        When no end has a record and something is not given, or when the ends' records name different backbones.
    """
    known = next((end.pretraining for end in ends if end.pretraining), None)
    if known is None and not (dataset and backbone):
        options = [
            option for option, given in (("--backbone NAME", backbone), ("--dataset NAME", dataset)) if not given
        ]
        raise UserError(f"no record says what A and B are: give {' and '.join(options)}")
    if not backbone:
        _check_same_backbone(ends)
    used = {"dataset": known.dataset, "backbone": known.backbone} if known else {}
    used = {kind: reference for kind, reference in used.items() if not {"dataset": dataset, "backbone": backbone}[kind]}
    return Suite(
        name="connect",
        datasets=(dataset or qualified(used["dataset"]),),
        backbones=(backbone or qualified(used["backbone"]),),
        methods=(),
        cue_rates=(known.cue_rate or 0.0 if known else 1.0,),
        seeds=(known.seed if known else 0,),
        data=known.data if known else DataSettings(),
        connect=ConnectSettings(paths=PATHS),
        parameters={qualified(reference): reference.parameters for reference in used.values()},
    )


def _check_same_backbone(ends: Sequence[Source]) -> None:
    told = [(end, end.pretraining.backbone) for end in ends if end.pretraining]
    for end, backbone in told[1:]:
        first, reference = told[0]
        if backbone.content("version", "distribution") != reference.content("version", "distribution"):
            raise UserError(
                f"{first.name} is a {_in_words(reference)} and {end.name} a {_in_words(backbone)}: "
                "both must be of the same architecture"
            )


def _in_words(backbone: PluginRef) -> str:
    settings = ", ".join(f"{name} = {value}" for name, value in backbone.parameters.items())
    return f"{backbone.name} ({settings})" if settings else backbone.name


def qualified(reference: PluginRef) -> str:
    """Return the name that selects exactly what a reference names."""
    return f"{reference.distribution}:{reference.name}"
