"""Weights as the content of files: safetensors whose header says how the weights were made."""

import contextlib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from mmc_bench.results.codec import DiskError, read_if_there
from mmc_bench.results.records import WeightsOrigin

if TYPE_CHECKING:
    import torch

ORIGIN, CHECKSUM = "mmc_bench.origin", "mmc_bench.sha256"


@dataclass(frozen=True)
class Weights:
    """Weights by name, their checksum, and how they were made, where the file says so."""

    tensors: "dict[str, torch.Tensor]"
    sha256: str
    origin: WeightsOrigin | None = None


def checksum_of(tensors: "dict[str, torch.Tensor]") -> str:
    """Return the SHA-256 of weights as safetensors without a header of ours: equal weights have equal ones."""
    from safetensors.torch import save

    return hashlib.sha256(save(tensors)).hexdigest()


def encoded_weights(tensors: "dict[str, torch.Tensor]", origin: WeightsOrigin) -> tuple[bytes, str]:
    """Return the content of a weights file, and the checksum of the weights."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    sha256, text = checksum_of(tensors), origin.model_dump_json()
    return save(tensors, {ORIGIN: text, CHECKSUM: _checksum(sha256, text)}), sha256


def decoded_weights(content: bytes) -> Weights | None:
    """Return what a weights file holds, or None where it is no safetensors file.

    Its `origin` is None where the header says nothing, was damaged, or comes from another version of mmc-bench.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(content)
    except SafetensorError:
        return None
    sha256 = checksum_of(tensors)
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size]).get("__metadata__", {})
    text = header.get(ORIGIN, "")
    with contextlib.suppress(ValidationError):
        if header.get(CHECKSUM) == _checksum(sha256, text):
            return Weights(tensors, sha256, WeightsOrigin.model_validate_json(text))
    return Weights(tensors, sha256)


class WeightsFile:
    """A weights file as it was when it was read; `content` is None where there is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = _identity(path)
        self.content = read_if_there(path)

    def weights(self) -> Weights | None:
        """Return what it holds, or None where that is no weights."""
        return None if self.content is None else decoded_weights(self.content)

    def lost(self) -> str:
        """Return what became of weights that were not found in it; where there is another content, it is set aside."""
        if self.content is None:
            return f"weights file {self.path} is gone"
        return f"weights file {self.path} does not match its record's checksum: set aside as {self.set_aside().name}"

    def set_aside(self) -> Path:
        """Rename it, unless another worker did so, or has made it again since; return its name then.

        Raises
        ------
        DiskError
            When it cannot be renamed.
        """
        aside = self.path.with_suffix(".damaged")
        try:
            if _identity(self.path) == self._read:
                self.path.replace(aside)
        except FileNotFoundError:
            pass
        except OSError as error:
            sentence = f"damaged weights file {self.path} cannot be renamed: {error.strerror}"
            raise DiskError(sentence, error.errno) from None
        return aside


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from one that took its place, or None when it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _checksum(sha256: str, text: str) -> str:
    return hashlib.sha256(f"{sha256}{text}".encode()).hexdigest()
