"""Leases: which run does which job, in a results folder that many runs on many machines may share.

    RESULTS/locks/<key>.<n>.lease     the n-th claim on a job, counted from 0

A run claims a job before it does it, and releases it when the job's record or failure is there. Claims are numbered:
claim n + 1 can be made only where claim n is there and its owner has gone, and of several runs that try, one succeeds,
because a file comes into being under its name once (a hard link, which is atomic on network file systems too). A late
claim can thus never take the place of a newer one. No lock of the operating system is needed, and no clock is compared
with another machine's: an owner touches its claims every `HEARTBEAT` seconds, and counts as gone when another process
has watched a claim for `STALE_AFTER` seconds by its own clock without a touch, or when the owner's process is known to
have ended, which only processes on the same machine can find out.

`Store.check_writable` makes the folder when a run starts, and a claim never does: if it is missing later, the disk is
not mounted, and the claims of other runs cannot be read.
"""

import contextlib
import errno
import json
import os
import secrets
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from mmc_bench.system.files import temporary_name
from mmc_bench.system.processes import ProcessId, this_process

#: Seconds between two touches of a claim by its owner.
HEARTBEAT = 15.0

#: Seconds without a touch after which an owner has gone. Network file systems may show touches a minute late.
STALE_AFTER = 120.0

#: The same where the owner's process is known to have ended: its workers need a moment to notice.
STALE_WHEN_ENDED = 1.0

#: Seconds between two reads of a claim, at most, for it to count as watched meanwhile.
LONGEST_PAUSE = 2 * HEARTBEAT

#: Errors of file systems without hard links.
WITHOUT_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)

#: Bytes of a claim, at most: a valid one has a few hundred.
LONGEST = 10_000


@dataclass(frozen=True)
class Claim:
    """One claim on a job, as it was found."""

    key: str
    number: int
    token: str
    touched: int
    label: str = ""
    since: str = ""
    owner: ProcessId | None = None

    @property
    def has_ended(self) -> bool:
        """Whether its owner's process is known to have ended."""
        return self.owner is not None and self.owner.is_gone


class _Watched(NamedTuple):
    """A claim's last touch, and when (monotonic) it was first and last seen with it."""

    touched: int
    since: float
    looked: float


class Leases:
    """The leases that this run has on jobs, kept alive by a thread until they are released."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, int] = {}
        self._lost: set[str] = set()
        self._tokens: set[str] = set()  # of all claims that this run made
        self._watched: dict[str, _Watched] = {}
        self._guard = threading.Lock()
        self._closed = threading.Event()
        self._heart: threading.Thread | None = None

    def __enter__(self) -> "Leases":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def claim(self, key: str, label: str) -> bool:
        """Claim a job; False when another run has it.

        Raises
        ------
        OSError
            When the folder cannot be written, or is not there.
        """
        before: Claim | None = None
        number = 0
        while not self._make(key, number, label):
            before = _read(self._path(key, number))
            if before is None or not self._is_stale(before):  # released just now, or alive
                return False
            number += 1
        if not self._follows(before, key, number):
            self._path(key, number).unlink(missing_ok=True)
            return False
        with self._guard:
            self._held[key] = number
            self._lost.discard(key)
        if self._heart is None:
            self._heart = threading.Thread(target=self._keep_touching, name="heartbeat", daemon=True)
            self._heart.start()
        return True

    def _follows(self, before: Claim | None, key: str, number: int) -> bool:
        """Return whether a claim that was just made is valid: it follows a stale one, and none follows it."""
        # What was stale a moment ago may have been taken over, done and released meanwhile: then ours counts on from
        # one that is no more.
        if before is not None:
            found = _read(self._path(key, before.number))
            if found is None or found.token != before.token:
                return False
        # Owners that were killed while they released leave their highest claims behind.
        above = [claim for claim in _claims(self._folder, key) if claim.number > number]
        stale = [self._is_stale(claim) for claim in above]
        if all(stale):
            for claim in above:
                self._path(key, claim.number).unlink(missing_ok=True)
        return all(stale)

    def release(self, key: str) -> None:
        """Remove a claim and those that it followed; one that was lost meanwhile stays with its new owner."""
        with self._guard:
            number = self._held.pop(key, None)
            self._lost.discard(key)
        if number is None:
            return
        with contextlib.suppress(OSError):  # a folder that cannot be written any more: the claim becomes stale
            for earlier in range(number + 1):  # in this order: see `_follows`
                self._path(key, earlier).unlink(missing_ok=True)

    def lost(self) -> set[str]:
        """Return the jobs that another run took over because this process did not touch them in time."""
        with self._guard:
            return set(self._lost)

    def sweep(self) -> None:
        """Remove the claims of processes that have ended, unless another run continued their jobs.

        Takes `STALE_WHEN_ENDED` seconds when there are any.
        """
        left = [claim for claim in find_claims(self._folder) if claim.has_ended and not self._is_stale(claim)]
        if left:
            time.sleep(STALE_WHEN_ENDED)
        for claim in left:
            if self.claim(claim.key, claim.label):
                self.release(claim.key)

    def close(self) -> None:
        """Release every claim."""
        self._closed.set()
        for key in list(self._held):
            self.release(key)

    def _make(self, key: str, number: int, label: str) -> bool:
        """Bring a claim into being; False when it is there already."""
        path = self._path(key, number)
        token = secrets.token_hex(8)
        content = {
            "token": token,
            "label": label,
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "owner": asdict(this_process()),
        }
        temporary = temporary_name(path)
        self._tokens.add(token)
        try:
            temporary.write_text(json.dumps(content), encoding="utf-8")
            os.link(temporary, path)
        except FileExistsError:
            # A network file system may have made the link, lost the answer, and been asked again.
            return temporary.stat().st_nlink == 2
        except OSError as error:
            if error.errno not in WITHOUT_LINKS:
                raise
            return _created(path, json.dumps(content))
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def _is_stale(self, claim: Claim) -> bool:
        """Return whether a claim has been watched for so long without a touch that its owner must have gone."""
        if claim.token in self._tokens and claim.key not in self._held:
            return True  # of this run, left when the disk was away
        now = time.monotonic()
        before = self._watched.get(claim.token)
        # After a pause, which may have been the whole file system's, watching begins anew.
        goes_on = before is not None and before.touched == claim.touched and now - before.looked <= LONGEST_PAUSE
        since = before.since if before is not None and goes_on else now
        self._watched[claim.token] = _Watched(claim.touched, since, now)
        return now - since >= (STALE_WHEN_ENDED if claim.has_ended else STALE_AFTER)

    def _keep_touching(self) -> None:
        while not self._closed.wait(HEARTBEAT):
            self.touch()

    def touch(self) -> None:
        """Show that this process lives; note the claims that another run has taken over."""
        with self._guard:
            held = dict(self._held)
        for key, number in held.items():
            with contextlib.suppress(OSError):  # a disk that is away for a moment: others see no touch meanwhile
                os.utime(self._path(key, number))
        try:
            newest = dict(sorted(_listed(self._folder)))
        except OSError:  # only a folder that can be listed can tell that a claim is gone
            return
        for key, number in held.items():
            with self._guard:
                if self._held.get(key) == number and newest.get(key) != number:
                    del self._held[key]
                    self._lost.add(key)

    def _path(self, key: str, number: int) -> Path:
        return self._folder / f"{key}.{number}.lease"


def find_claims(folder: Path) -> list[Claim]:
    """Return the newest claim on every job, by the time of the claim."""
    newest = dict(sorted(_names(folder)))
    claims = [_read(folder / f"{key}.{number}.lease") for key, number in newest.items()]
    return sorted((claim for claim in claims if claim), key=lambda claim: (claim.since, claim.key))


def _claims(folder: Path, key: str) -> list[Claim]:
    """Return all claims on one job."""
    claims = [_read(folder / f"{key}.{number}.lease") for other, number in _names(folder) if other == key]
    return [claim for claim in claims if claim]


def _names(folder: Path) -> list[tuple[str, int]]:
    """Return key and number of every claim in a folder, of which there are none where it is missing."""
    try:
        return _listed(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _listed(folder: Path) -> list[tuple[str, int]]:
    """Return key and number of every claim in a folder that is there."""
    leases = [entry.name for entry in os.scandir(folder) if entry.name.endswith(".lease")]
    names = [name.removesuffix(".lease").rpartition(".") for name in leases]
    return [(key, int(number)) for key, _, number in names if key and number.isdecimal()]


def _created(path: Path, content: str) -> bool:
    """Bring a claim into being where there are no hard links; for a moment it is empty."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(content)
    except FileExistsError:
        return False
    return True


def _read(path: Path) -> Claim | None:
    """Return a claim, or None when it is gone; of one that is damaged, only name and last touch are known."""
    key, _, number = path.name.removesuffix(".lease").rpartition(".")
    if not key or not number.isdecimal():
        return None
    try:
        # Opening gets the present state from a network file system; a pipe must not block.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        return None
    except OSError:  # another user's, perhaps: that it is touched can be seen all the same
        with contextlib.suppress(OSError):
            return Claim(key, int(number), token=path.name, touched=path.stat().st_mtime_ns)
        return Claim(key, int(number), token=path.name, touched=0)
    try:
        status = os.fstat(descriptor)
        content = _parsed(os.read(descriptor, LONGEST) if stat.S_ISREG(status.st_mode) else b"")
    finally:
        os.close(descriptor)
    return Claim(key, int(number), touched=status.st_mtime_ns, **{"token": path.name, **content})


def _parsed(content: bytes) -> dict[str, Any]:
    """Return what a claim says, or nothing when it is damaged."""
    try:
        found = json.loads(content)
        owner = ProcessId(**found["owner"])
        texts = {name: found[name] for name in ("token", "label", "since")}
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    whole = [owner.host, owner.machine, owner.born, *texts.values()]
    if not all(isinstance(text, str) for text in whole) or not isinstance(owner.pid, int):
        return {}
    return {**texts, "owner": owner}


@contextlib.contextmanager
def leased(leases: Leases, key: str, label: str, pause: float = 0.2) -> Iterator[None]:
    """Hold a job's lease meanwhile; wait for it as long as another run has it."""
    while not leases.claim(key, label):
        time.sleep(pause)
    try:
        yield
    finally:
        leases.release(key)
