"""Showing that two versions of the source give the same numbers: small cells in both, compared to the bit.

What runs is the command line of each source, in processes of its own, on this machine, in fp32 and one thread. Its
records are compared by the names of their numbers, so that their schema may differ, and its weights by their tensors.
"""

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from mmc_bench.errors import UserError
from mmc_bench.plugin.offers import Offer
from mmc_bench.plugin.registry import Registry
from mmc_bench.plugin.versions import OWN_DISTRIBUTION
from mmc_bench.results.versions import STAGES, digest_of_stage, known_digests
from mmc_bench.system.yaml_files import yaml_of

#: The packages of a checkout, by the folders that they lie in.
PACKAGES = {"mmc_bench": "mmc_bench", "plugins": "mmc_bench_plugins", "benchmarks": "mmc_bench_benchmarks"}
#: Members of a record that hold its numbers, under the names of any schema.
NUMBERS = ("metrics", "curve", "connectivity", "paths", "comparison", "invariance", "effects", "num_classes", "hold")
TINY = {
    "threads": 1,
    "data": {"pretrain_images": 96, "clean_images": 48, "validation_images": 24},
    "pretrain": {"epochs": 2, "batch_size": 32, "curve_images": 100},
    "connect": {"points": 3, "batchnorm_images": 48},
}
IMAGES_OF_A_CLASS = 18
#: Ends the name of a failed cell's error.
FAILED = ": failed"
LONGEST = 1800  # seconds


@dataclass(frozen=True)
class Locked:
    """A stage or built-in plugin: its declared version, and the digest of its source at hand."""

    kind: str
    name: str
    version: int
    digest: str
    offers: tuple[Offer, ...] = ()

    @property
    def label(self) -> str:
        """For people: ``"stage connect"``."""
        return f"{self.kind.removesuffix('s')} {self.name}"

    @property
    def is_listed(self) -> bool:
        """Whether the lock lists this source."""
        return self.digest in known_digests(self.kind, self.name, self.version)


# Prints what a source has; plugins that only the installed distribution has are none of it.
THINGS = """
import json, sys
from mmc_bench.plugin.registry import Registry
from mmc_bench.testing.golden import locked_things

print(json.dumps([
    (t.kind, t.name, t.version, t.digest)
    for t in locked_things(Registry.discover())
    if not t.offers or t.offers[0].plugin.module.__file__.startswith(sys.argv[1])
]))
"""


def locked_things(registry: Registry) -> list[Locked]:
    """Return all stages and built-in plugins that decide numbers."""
    found = [Locked("stages", name, stage.version, digest_of_stage(name)) for name, stage in STAGES.items()]
    for plugin in registry.plugins:
        offers = [
            offer
            for kind in ("dataset", "backbone", "method")
            for offer in registry.offers(kind)
            if offer.plugin is plugin or offer.plugin == plugin
        ]
        if plugin.distribution == OWN_DISTRIBUTION and offers and plugin.digest is not None:
            version = int(plugin.version.partition("+")[0])
            found.append(Locked("plugins", plugin.name, version, plugin.digest, tuple(offers)))
    return found


def golden_suite(
    thing: Locked, registry: Registry, usual: Mapping[str, Any], old: Mapping[tuple[str, str], tuple[int, str]]
) -> dict[str, Any]:
    """Return the suite whose cells exercise a stage or plugin.

    Parameters
    ----------
    usual
        A suite on embedded images, whose first dataset, backbone and method serve where others are not asked for.
    old
        What `things_in` returned for the source to compare with: the methods that it has in the same version are tried.
    """
    chosen = {kind: [usual[f"{kind}s"][0]] for kind in ("dataset", "backbone", "method")}
    connect: dict[str, Any] = dict(TINY["connect"])  # type: ignore[call-overload]
    suite: dict[str, Any] = {**TINY, "cue_rates": [0.9], "seeds": [0], "usual": usual["datasets"][0]}
    for kind in chosen:
        if names := [name for offer in thing.offers if offer.spec.kind == kind and (name := tried_name(offer))]:
            chosen[kind] = names
    if any(offer.spec.kind == "backbone" for offer in thing.offers):  # each on all images that suit it
        embedded = {*registry.get("dataset", suite["usual"]).spec.sources}
        sets = [offer.spec for offer in registry.offers("dataset") if offer.plugin.distribution == OWN_DISTRIBUTION]
        chosen["dataset"] = [spec.name for spec in sets if embedded >= {*spec.sources}]
    if thing.kind == "stages" and thing.name == "fine-tune":
        same = [
            other for other in locked_things(registry) if old.get((other.kind, other.name), (0,))[0] == other.version
        ]
        offers = [offer for other in same for offer in other.offers if offer.spec.kind == "method"]
        chosen["method"] = sorted(offer.spec.name for offer in offers)
    if thing.kind == "stages" and thing.name == "connect":
        connect |= {"paths": ["linear", "permuted", "quadratic", "quadratic-nc"], "train_images": 32}
        connect |= {"matching": "correlations-after-relu", "quadratic": {"epochs": 1, "batch_size": 32}}
        suite["pairs"] = [{"second": {"seed": 1}}]
    if thing.kind == "stages" and thing.name == "probe":
        suite["probed"] = True
    suite |= {f"{kind}s": names for kind, names in chosen.items()} | {"connect": connect}
    suite["parameters"] = {name: short for name in chosen["method"] if (short := _short(registry, name))}
    return suite


def tried_name(offer: Offer) -> str | None:
    """Return the name under which small cells try what is offered; None for a family without an example."""
    name: str = offer.spec.name
    return offer.spec.example if "*" in name else name


def untried(thing: Locked, numbers: Iterable[str]) -> list[str]:
    """Return what a plugin offers that no cell with numbers has used."""
    used = {word for name in numbers if not name.endswith(FAILED) for word in name.partition(":")[0].split()}
    return [offer.spec.name for offer in thing.offers if tried_name(offer) not in used]


def _short(registry: Registry, method: str) -> dict[str, Any]:
    """Return parameters that make a method short, as far as it has them."""
    config: Any = registry.get("method", method).load().Config
    return {
        name: 2 if name.endswith("epochs") else 16
        for name, field in config.model_fields.items()
        if (name.split("_")[-1] == "epochs" or name == "batch_size") and field.annotation is int
    }


def numbers_of(source: Path, suite: Mapping[str, Any], registry: Registry, folder: Path) -> dict[str, Any]:
    """Run a suite in the source of a checkout, and return every number by name, and why cells failed.

    Raises
    ------
    UserError
        When it does not run there.
    """
    path, results = folder / "path", folder / "results"
    path.mkdir(parents=True)
    for name, package in PACKAGES.items():
        (path / package).symlink_to((source / name).resolve(), target_is_directory=True)
    content = {name: value for name, value in suite.items() if name not in ("usual", "probed")}
    (folder / "golden.yaml").write_text(yaml_of(content), encoding="utf-8")
    words = ["--suite", "golden.yaml", "--results", str(results), "--no-download"]
    words += ["--precision", "fp32", "--threads", "1", "--device", "cpu"]
    embedded = registry.get("dataset", suite["usual"]).spec.sources
    for name in suite["datasets"]:
        spec = registry.get("dataset", name).spec
        for one in spec.sources:
            if one not in embedded:
                words += ["--data", f"{one}={_images(folder.parent / 'images' / one, spec.num_classes or 10)}"]
    environment = {**os.environ, "PYTHONPATH": str(path), "MMC_BENCH_PLUGINS": ""}
    for command in (["run", "--keep-weights", "--json", "--workers", "1"], *[["probe"]] * suite.get("probed", False)):
        done = subprocess.run(
            [sys.executable, "-m", "mmc_bench", *command, *words],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LONGEST,
        )
        if done.returncode not in (0, 1):  # 1: some cells failed, as where a backbone does not suit a dataset
            message = (done.stderr.strip() or "no message").splitlines()[-1]
            raise UserError(f"golden cells do not run in {source}: {message}")
    return dict(_numbers(results))


def _images(folder: Path, classes: int) -> Path:
    """Write class folders of noise, the same on every call."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for part in ("train", "test"):
        for number in range(classes * IMAGES_OF_A_CLASS):
            path = folder / part / f"{number % classes:03}" / f"{number // classes}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    return folder


def _numbers(results: Path) -> Iterator[tuple[str, Any]]:
    for file in sorted(results.glob("*/*.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        if "kind" not in record:
            yield f"{record['label']}{FAILED}", record["error"]
            continue
        label = _label(record)
        for name in NUMBERS:
            yield from _flat(f"{label}: {name}", record.get(name))
        if isinstance(record.get("weights_sha256"), str):
            yield f"{label}: weights", record["weights_sha256"]


def _label(record: Mapping[str, Any]) -> str:
    job = record[record["kind"]]
    if record["kind"] == "probe":  # the model's label ends in a key, which versions change
        return f"probe {job['model']['label'].rpartition(' (')[0]}"
    first = job.get("pretraining") or job.get("first") or job
    words = [record["kind"], first["dataset"]["name"], first["backbone"]["name"], f"seed {first['seed']}"]
    return " ".join([*words, *([job["method"]["name"]] if "method" in job else [])])


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(f"{name}.{key}", item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _flat(f"{name}[{index}]", item)
    elif value is not None:
        yield name, value


def first_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """Return a clause about the first number that differs or is gone; None when the old ones are all there.

    Raises
    ------
    UserError
        When there is no old number: nothing is shown by that.
    """
    if not any(not name.endswith(FAILED) for name in old):
        raise UserError("the old source gives no number, so nothing is shown")
    for name, value in old.items():
        if name not in new:
            return f"{name} is {value} in the old source, and not there in the new one"
        if new[name] != value and not name.endswith(FAILED):  # what a failure says is no number
            return f"{name} is {value} and {new[name]}"
    return None


def old_source(root: Path, revision: str, folder: Path) -> Path:
    """Unpack a commit's packages into a folder.

    Raises
    ------
    UserError
        When git cannot.
    """
    try:
        command = ["git", "-C", str(root), "archive", revision, *PACKAGES]
        packed = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"git has no source of {revision}: {getattr(error, 'stderr', b'') or error}") from None
    with tarfile.open(fileobj=BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def things_in(source: Path) -> dict[tuple[str, str], tuple[int, str]]:
    """Return the version and digest that each stage and plugin of another source has there, by kind and name."""
    with tempfile.TemporaryDirectory() as folder:
        for name, package in PACKAGES.items():
            (Path(folder) / package).symlink_to((source / name).resolve(), target_is_directory=True)
        environment = {**os.environ, "PYTHONPATH": folder}
        done = subprocess.run(
            [sys.executable, "-c", THINGS, folder], cwd=folder, env=environment, capture_output=True, text=True
        )
    return {(kind, name): (version, digest) for kind, name, version, digest in json.loads(done.stdout or "[]")}
