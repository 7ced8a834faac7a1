"""Sources of small plugins, and putting them where plugins are found."""

import textwrap

from mmc_bench.plugin.discovery import folder_candidates
from mmc_bench.plugin.registry import Registry

HEADER = "from mmc_bench import BackboneSpec, DatasetSpec, MethodSpec, ObserverSpec, hookimpl\n"


def registering(*names, kind="method", target=":Mine", defaults=None):
    """Return the source of a plugin that registers specs of these names."""
    calls = "".join(
        f"\n    register({kind.title()}Spec(name={name!r}, target={target!r}, defaults={defaults or {}!r}))"
        for name in names
    )
    return f"{HEADER}\n@hookimpl\ndef register_{kind}s(register):{calls}\n\nclass Mine:\n    pass\n"


GOOD = registering("good")


def write_source(root, path, source):
    """Write a file below `root` and return its path."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(textwrap.dedent(source), encoding="utf-8")
    return file


def install_distribution(root, monkeypatch, distribution, files, entry_points, version="1.0"):
    """Put modules on the import path, with a distribution's metadata beside them."""
    site = root / f"site-{distribution}"
    for path, source in files.items():
        write_source(site, path, source)
    points = "".join(f"{name} = {module}\n" for name, module in entry_points.items())
    info = f"{distribution.replace('-', '_')}-{version}.dist-info"
    write_source(site, f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    write_source(site, f"{info}/entry_points.txt", f"[mmc_bench]\n{points}")
    monkeypatch.syspath_prepend(str(site))


def registry_of(*folders):
    """Return a registry of folder plugins alone."""
    return Registry(folder_candidates(folders))
