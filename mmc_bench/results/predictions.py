"""Predictions on single test images as the content of files: npz, which numpy alone reads.

    numpy.load("RESULTS/predictions/<key>.npz")

The archive ends in a comment that has the key of the record and a checksum: equal predictions are equal files, and a
damaged one is found without unpacking it.
"""

import hashlib
import io
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from mmc_bench.results.codec import DamagedError
from mmc_bench.results.metrics import GROUP_SPLITS


@dataclass(frozen=True)
class Predictions:
    """What a model predicts on the test images: one row an image and split, split by split.

    Within a split, rows lie in the test set's order: the i-th row of each counterfactual split is of the i-th image,
    its label and, on RI, its own cue. Images that come in groups have one row each.

    Parameters
    ----------
    split
        Text (n,): the split; of images in groups, ``aligned`` or ``conflicting``.
    image
        int64 (n,): the row in the test set, in dataset order, of the picture that is shown; on RI another image's.
    label, predicted
        int64 (n,).
    cue
        (n,) or (n, …): the code of the cue that is shown, -1 where none is; of images in groups, the attribute.
    group
        int64 (n,): the group of label and cue on RC, or of label and attribute; -1 where an image is in none.
    probabilities
        float32 (n, K): the softmax of the logits.
    """

    split: npt.NDArray[np.str_]
    image: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]
    cue: npt.NDArray[np.generic]
    group: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.label)

    def rows(self, which: "npt.NDArray[np.bool_] | npt.NDArray[np.int64]") -> "Predictions":
        """Return these rows, by a mask (n,) or by their numbers."""
        return replace(self, **{field.name: getattr(self, field.name)[which] for field in fields(self)})

    @property
    def splits(self) -> dict[str, "Predictions"]:
        """The rows of each split; of images in groups, those of all, too."""
        found = {str(name): self.rows(self.split == name) for name in dict.fromkeys(self.split.tolist())}
        all_images, *halves = GROUP_SPLITS
        if not found.keys() <= {*halves}:
            return found
        return {all_images: self, **{name: found[name] for name in halves if name in found}}


def encoded_predictions(predictions: Predictions, key: str) -> bytes:
    """Return the content of a file with the predictions that belong to the record with this key."""
    archive = io.BytesIO()
    arrays = {field.name: getattr(predictions, field.name) for field in fields(predictions)}
    np.savez_compressed(archive, **arrays)
    return _sealed(archive.getvalue(), key)


def checked_predictions(key: str, path: str, content: bytes) -> bytes:
    """Return a file's content if it is as `encoded_predictions` made it for this key; raises `DamagedError`."""
    end = len(_seal(b"", key))
    if len(content) < end or content != _sealed(content[: -end - 2] + b"\0\0", key):
        raise DamagedError(f"{path} does not hold the predictions of its record as they were written")
    return content


def decoded_predictions(key: str, path: str, content: bytes) -> Predictions:
    """Return the predictions in a file.

    Raises
    ------
    DamagedError
        When it is damaged, another record's, or from another version of mmc-bench.
    """
    with np.load(io.BytesIO(checked_predictions(key, path, content)), allow_pickle=False) as arrays:
        wanted = [field.name for field in fields(Predictions)]
        if not {*wanted} <= {*arrays.files}:
            raise DamagedError(f"{path} holds predictions of another version of mmc-bench")
        return Predictions(**{name: arrays[name] for name in wanted})


def _seal(archive: bytes, key: str) -> bytes:
    return f"{key} {hashlib.sha256(archive + key.encode()).hexdigest()}".encode()


def _sealed(archive: bytes, key: str) -> bytes:
    """Return a zip archive without a comment, which ends in the comment's length, with one."""
    seal = _seal(archive, key)
    return archive[:-2] + len(seal).to_bytes(2, "little") + seal
