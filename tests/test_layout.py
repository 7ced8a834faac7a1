"""The shape of the project: what is packaged, who may import whom, and what the core must not know."""

import ast
import re
import tomllib
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

from mmc_bench.plugin.registry import KINDS, Registry

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CODE = ("mmc_bench", "plugins", "benchmarks", "tests")

# From the ground up. A module imports from lower layers alone; one that shares its layer is out of bounds,
# except within a package. `mmc_bench` itself is what plugin authors import.
LAYERS = (
    {"errors", "seeds"},
    {"system"},
    {"results", "identity"},
    {"plugin"},
    {"mmc_bench"},
    {"suites", "data"},
    {"training"},
    {"landscape", "mechanisms"},
    {"stages"},
    {"engines", "report"},
    {"running"},
    {"testing", "leaderboard", "auditing"},
    {"api"},
    {"cli"},
    {"__main__"},
)
LAYER_OF = {module: height for height, modules in enumerate(LAYERS) for module in modules}

# What a plugin may lean on: everything else in the core can change without asking plugin authors.
PUBLIC = {
    "mmc_bench",
    "mmc_bench.training",
    "mmc_bench.data.contract",
    "mmc_bench.data.listing",
    "mmc_bench.data.stored",
    "mmc_bench.errors",
    "mmc_bench.running.tracking",
    "mmc_bench.testing",
}


def python_files(*folders):
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    assert files
    return sorted(files)


def relative(file):
    return file.relative_to(ROOT).as_posix()


@cache
def tree_of(file):
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def imported(file):
    """Return the modules that a file imports when it runs, at any depth; annotations' imports are left out."""
    tree = tree_of(file)
    unused = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            unused |= {inner for statement in node.body for inner in ast.walk(statement)}
    modules = set()
    for node in set(ast.walk(tree)) - unused:
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 or file.is_relative_to(ROOT / "plugins"), f"{relative(file)} imports relatively"
            modules |= {node.module or ""} if node.level == 0 else set()
            if node.module == "mmc_bench":  # `from mmc_bench import hookspecs` imports a module
                modules |= {f"mmc_bench.{a.name}" for a in node.names if (ROOT / f"mmc_bench/{a.name}.py").exists()}
    return modules


def layer_name(module):
    """Return the name under which a core module stands in LAYERS: its first part below mmc_bench."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "mmc_bench"


def module_of(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


# --- packaging


def test_every_package_is_packaged():
    folders = {file.parent.relative_to(ROOT) for file in python_files("mmc_bench", "plugins", "benchmarks")}
    sources = {target: name for name, target in PYPROJECT["tool"]["setuptools"]["package-dir"].items()}
    packages = {".".join((sources.get(folder.parts[0], folder.parts[0]), *folder.parts[1:])) for folder in folders}
    listed = PYPROJECT["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(packages)


def test_every_plugin_folder_has_an_entry_point_and_speaks_the_api():
    folders = {file.parent.name for file in (ROOT / "plugins").glob("*/__init__.py")}
    points = PYPROJECT["project"]["entry-points"]["mmc_bench"]
    modules = set(points.values())
    assert {f"mmc_bench_plugins.{folder}" for folder in folders} == modules - {"mmc_bench_benchmarks"}
    for name, module in points.items():
        assert module.rpartition(".")[2] in (name.replace("-", "_"), "mmc_bench_benchmarks")
    for plugin in Registry.discover().plugins:
        if plugin.distribution == "mmc-bench":
            assert plugin.error is None and plugin.provides
            assert plugin.module.mmc_bench_api == 1


def test_every_suite_and_published_table_is_packaged():
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]["mmc_bench_benchmarks"]
    shipped = {file for pattern in patterns for file in (ROOT / "benchmarks").glob(pattern)}
    wanted = {*(ROOT / "benchmarks").rglob("*.yaml"), *(ROOT / "benchmarks" / "published").iterdir()}
    assert len(wanted) > 8 and wanted <= shipped


# --- who knows whom


@pytest.mark.slow
@pytest.mark.parametrize("file", python_files("mmc_bench"), ids=relative)
def test_imports_run_downwards_only(file):
    own = layer_name(module_of(file))
    assert own in LAYER_OF, f"{own} is new: give it a place in LAYERS"
    for module in imported(file):
        if module.split(".")[0] == "mmc_bench" and layer_name(module) != own:
            other = layer_name(module)
            assert LAYER_OF[other] < LAYER_OF[own], f"{relative(file)} imports {module}, which is not below {own}"


@pytest.mark.slow
def test_no_modules_import_each_other_in_a_circle():
    files = {module_of(file): file for file in python_files("mmc_bench") if file.name != "__init__.py"}

    def needs(module):
        named = imported(files[module])
        parents = {f"{name}.{alias}" for name, alias in _taken_from_packages(files[module]) if name in named}
        return {name for name in named | parents if name in files}

    above, done = [], set()

    def visit(module):
        assert module not in above, f"a circle: {' -> '.join([*above[above.index(module) :], module])}"
        if module not in done:
            above.append(module)
            for needed in sorted(needs(module)):
                visit(needed)
            done.add(above.pop())

    for module in files:
        visit(module)


def _taken_from_packages(file):
    """Return what a file imports by name, and from where: these may be modules of a package."""
    nodes = [node for node in ast.walk(tree_of(file)) if isinstance(node, ast.ImportFrom)]
    return {(node.module, alias.name) for node in nodes for alias in node.names}


@pytest.mark.parametrize("file", python_files("plugins"), ids=relative)
def test_built_in_plugins_use_only_what_anybody_s_may(file):
    core = {module for module in imported(file) if module.split(".")[0].startswith("mmc_bench")}
    assert core <= PUBLIC


@pytest.mark.slow
def test_the_core_imports_no_plugin():
    for file in python_files("mmc_bench"):
        assert not {module for module in imported(file) if module.startswith(("mmc_bench_plugins", "plugins"))}


@pytest.mark.slow
def test_the_core_mentions_no_built_in_plugin_by_name():
    registry = Registry.discover()
    offers = [offer for kind in KINDS for offer in registry.offers(kind)]
    names = [re.escape(offer.spec.name) for offer in offers if offer.plugin.distribution == "mmc-bench"]
    assert len(names) > 10
    names = [name.removesuffix(r"\*") if name.endswith(r"\*") else rf"{name}(?![\w-])" for name in names]
    whole_word = re.compile(rf"(?<![\w-])(?:{'|'.join(names)})", re.IGNORECASE)
    mentions = [
        f"{relative(file)}:{number}: {line.strip()}"
        for file in python_files("mmc_bench")
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
        if whole_word.search(line)
    ]
    assert mentions == []


# --- size and portability


def test_no_file_outgrows_one_sitting():
    lengths = {relative(file): len(file.read_text(encoding="utf-8").splitlines()) for file in python_files(*CODE)}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_no_two_public_classes_share_a_name():
    places = defaultdict(list)
    for file in python_files("mmc_bench"):
        for node in tree_of(file).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(relative(file))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


@pytest.mark.slow
def test_every_module_and_test_file_says_what_it_is_about():
    assert [relative(file) for file in python_files(*CODE) if not ast.get_docstring(tree_of(file))] == []


@pytest.mark.slow
def test_no_file_names_a_place_on_one_machine():
    place = re.compile(r"(?<![\w./*~}-])(/(?:home|Users|root|work|mnt|scratch|tmp)/\w[\w./-]*|[A-Z]:\\\w+)")
    kinds = {".py", ".toml", ".md", ".yaml", ".json", ".csv", ".html"}
    files = [file for folder in (*CODE, "leaderboard") for file in (ROOT / folder).rglob("*")]
    files = [file for file in (*files, *ROOT.iterdir()) if file.suffix in kinds] + [ROOT / ".ci" / "run"]
    found = [
        f"{relative(file)}: {match[1]}" for file in files for match in place.finditer(file.read_text(encoding="utf-8"))
    ]
    assert found == []
