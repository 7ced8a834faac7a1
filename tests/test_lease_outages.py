"""Leases while the results folder is away: no job in hand is lost, and no claim is made elsewhere."""

import errno
import os

import pytest
from helpers.records import cell_record
from test_leases import files, refusing

from mmc_bench.engines.dispatch import Dispatcher
from mmc_bench.results import leases as module
from mmc_bench.results.leases import Leases
from mmc_bench.results.store import Store


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr("mmc_bench.engines.dispatch.PAUSE", 0.0)
    store = Store(tmp_path / "results")
    store.check_writable()
    return store


@pytest.mark.parametrize("outage", ["renamed", "unmounted", "without locks"])
def test_a_run_waits_for_its_folder_and_keeps_the_jobs_in_hand(store, tmp_path, outage):
    jobs = [cell_record(method=name).cell for name in ("a", "b")]
    run = Dispatcher(jobs, store, lambda job, event: None)
    assert run.take() == jobs[0]
    gone = store.locks if outage == "without locks" else store.root
    away = gone.rename(tmp_path / "away")
    if outage == "unmounted":  # an empty folder is left, which may be writable
        gone.mkdir()
    assert run.take() is None
    run._leases.touch()
    assert run.lost() == []
    if outage == "unmounted":
        gone.rmdir()  # nothing was written there
    away.rename(gone)
    run._leases.touch()
    assert run.lost() == [] and run.take() == jobs[1]
    run.close()
    assert files(store.locks) == []


@pytest.mark.parametrize("name", ["scandir", "utime"])
@pytest.mark.parametrize("code", [errno.ENOENT, errno.ESTALE, errno.EIO])
def test_a_job_is_lost_only_where_the_listing_shows_it(store, monkeypatch, name, code):
    """The folder may be gone when a claim is touched and back when it is listed, or the other way round."""
    with Leases(store.locks) as leases:
        leases.claim("a", "mine")
        with monkeypatch.context() as away:
            away.setattr(module.os, name, refusing(OSError(code, os.strerror(code))))
            leases.touch()
        assert not leases.lost()


def test_a_claim_is_touched_though_its_folder_cannot_be_listed(store, monkeypatch):
    """As by a process with too many open files."""
    with Leases(store.locks) as leases:
        leases.claim("a", "mine")
        claim = store.locks / "a.0.lease"
        os.utime(claim, (1, 1))
        with monkeypatch.context() as away:
            away.setattr(module.os, "scandir", refusing(OSError(errno.EMFILE, "Too many open files")))
            leases.touch()
        assert claim.stat().st_mtime > 1


def test_a_folder_that_is_made_again_without_a_claim_has_lost_it(store):
    with Leases(store.locks) as leases:
        assert leases.claim("a", "mine")
        (store.locks / "a.0.lease").unlink()
        store.locks.rmdir()
        leases.touch()
        assert not leases.lost()
        store.check_writable()
        leases.touch()
        assert leases.lost() == {"a"}
        assert leases.claim("a", "mine") and not leases.lost()


@pytest.mark.parametrize("moment", ["made", "released"])
def test_a_claim_that_the_disk_kept_while_it_was_away_does_not_block_its_own_run(store, monkeypatch, moment):
    trouble = OSError(errno.EIO, os.strerror(errno.EIO))
    with Leases(store.locks) as leases, Leases(store.locks) as other:
        with monkeypatch.context() as away:
            if moment == "made":
                away.setattr(module.os, "scandir", refusing(trouble))
                with pytest.raises(OSError, match=os.strerror(errno.EIO)):
                    leases.claim("a", "mine")
            else:
                assert leases.claim("a", "mine")
                away.setattr(module.Path, "unlink", lambda path, missing_ok: refusing(trouble)())
                leases.release("a")
        assert files(store.locks) == ["a.0.lease"]
        assert not other.claim("a", "other")
        assert leases.claim("a", "mine")
        assert not other.claim("a", "other")
    assert files(store.locks) == []
