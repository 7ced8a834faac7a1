"""Seeds derived by hashing what they are for, so that no draw depends on the order or number of others."""

import hashlib
import json

#: What the sets of an experiment draw at random, each with a seed of its own, derived from the data seed.
DRAWS = (
    *("held-out sets", "test order", "minority cues", "clean cues"),
    *(f"{part}{draw}" for part in ("", "train ", "validation ") for draw in ("RI images", "RC cues")),
)


def derive_seed(what: str, seed: int) -> int:
    """Return the seed of one random draw.

    Parameters
    ----------
    what
        The draw's purpose, for example ``"clean set"``. Adding a purpose changes no other one's seed.
    seed
        The experiment's seed.

    Returns
    -------
    int
        An integer in [0, 2**63).
    """
    digest = hashlib.sha256(json.dumps([what, seed]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
