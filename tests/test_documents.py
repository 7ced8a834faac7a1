"""The documents: links lead somewhere, commands exist, and lists of what is built in are whole."""

import re
import shlex
import tomllib
from functools import cache
from importlib import import_module
from pathlib import Path

import click
import pytest
import yaml

from mmc_bench.cli.main import COMMANDS
from mmc_bench.leaderboard.submissions import SCHEMAS
from mmc_bench.plugin.hookspecs import API_VERSION
from mmc_bench.plugin.registry import KINDS, Registry
from mmc_bench.results.canonical import KEY_VERSION

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(file for name in ("plugins", "benchmarks", "leaderboard") for file in (ROOT / name).rglob("*.md")),
]
DOCUMENTS = [file for file in DOCUMENTS if not {"results", "figures"} & set(file.relative_to(ROOT).parts)]
DATA = [ROOT / "CITATION.cff", ROOT / "leaderboard" / "leaderboard.yaml", *(ROOT / "benchmarks").rglob("*.yaml")]
FENCE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"")


def name_of(file):
    return file.relative_to(ROOT).as_posix()


@cache
def prose(file):
    """Return a document without its blocks of code."""
    return FENCE.sub("", file.read_text(encoding="utf-8"))


@cache
def anchors(file):
    """Return the anchors that GitHub gives to a document's headings."""
    found = []
    for heading in re.findall(r"^#+ (.*)$", prose(file), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        repeats = sum(re.fullmatch(rf"{re.escape(slug)}(-\d+)?", other) is not None for other in found)
        found.append(f"{slug}-{repeats}" if repeats else slug)
    return found


def links(file):
    text = re.sub(r"`[^`\n]*`", "", prose(file))
    return [one or other for one, other in LINK.findall(text)]


def commands(file):
    """Return the calls of mmc-bench that a document shows in blocks and in its prose, each without `mmc-bench`."""
    blocks = "\n".join(match[0] for match in FENCE.finditer(file.read_text(encoding="utf-8")))
    lines = [line.partition("#")[0].removeprefix("$ ") for line in blocks.replace("\\\n", " ").splitlines()]
    spans = re.findall(r"`([^`\n]*)`", prose(file))
    calls = [call.strip() for text in (*lines, *spans) for call in text.split("&&")]
    return [call.removeprefix("mmc-bench ") for call in calls if call.startswith("mmc-bench ")]


def unknown_words(call):
    """Return what a call names that the command line does not have: its command, or options."""
    words = shlex.split(call)
    if words[0].startswith("-"):
        return []
    if words[0] not in COMMANDS:
        return [words[0]]
    command = import_module(f"mmc_bench.cli.{words[0]}").command
    if isinstance(command, click.Group) and len(words) > 1:
        if words[1] not in command.commands:
            return [words[1]]
        command = command.commands[words[1]]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return sorted({word.partition("=")[0] for word in words if word.startswith("--")} - known - {"--help"})


@pytest.mark.parametrize("file", DOCUMENTS, ids=name_of)
def test_every_link_leads_to_a_file_and_a_heading(file):
    broken = []
    for link in links(file):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (file.parent / path).resolve() if path else file
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_page_of_the_manual_is_in_its_index_and_in_the_readme():
    pages = {file.name for file in (ROOT / "benchmarks" / "docs").glob("*.md")}
    assert pages <= {link.removeprefix("docs/") for link in links(ROOT / "benchmarks" / "README.md")}
    assert pages <= {link.partition("#")[0].removeprefix("benchmarks/docs/") for link in links(ROOT / "README.md")}


@pytest.mark.parametrize("file", DOCUMENTS, ids=name_of)
def test_every_command_and_option_that_is_shown_exists(file):
    assert {call: words for call in commands(file) if (words := unknown_words(call))} == {}


def test_the_two_commands_of_the_readme_are_there_to_copy():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "```\npip install -e . && mmc-bench run --methods cbft,lpft\n```" in text
    assert "```\npip install -e '.[test]' && pytest -n auto --dist worksteal\n```" in text


def test_the_manual_lists_every_suite_dataset_backbone_and_method():
    manual = ROOT / "benchmarks" / "docs"
    suites = {file.stem for file in (ROOT / "benchmarks" / "suites").glob("*.yaml")}
    assert [name for name in suites if f"`{name}`" not in (manual / "suites.md").read_text(encoding="utf-8")] == []
    registry, catalogue = Registry.discover(), (manual / "catalogue.md").read_text(encoding="utf-8")
    names = {
        offer.spec.name.replace("/*", "/NAME")
        for kind in KINDS
        for offer in registry.offers(kind)
        if offer.plugin.distribution == "mmc-bench" and kind != "observer"
    }
    assert len(names) > 25
    assert sorted(name for name in names if f"`{name}`" not in catalogue) == []


def test_the_page_on_design_describes_every_package_of_the_core():
    text = (ROOT / "benchmarks" / "docs" / "design.md").read_text(encoding="utf-8")
    packages = {file.parent.name for file in (ROOT / "mmc_bench").glob("*/__init__.py")}
    assert sorted(name for name in packages if f"`{name}`" not in text) == []


def test_the_page_on_stability_has_the_versions_of_the_code():
    text = (ROOT / "benchmarks" / "docs" / "stability.md").read_text(encoding="utf-8")
    found = dict(re.findall(r"(mmc_bench_api|schema_version|key version).*?now (\d+)", text))
    schemas = {model.model_fields["schema_version"].default for model in SCHEMAS.values()}
    assert found == {
        "mmc_bench_api": str(API_VERSION),
        "schema_version": " ".join(map(str, schemas)),
        "key version": str(KEY_VERSION),
    }


@pytest.mark.parametrize("file", [*DOCUMENTS, *DATA], ids=name_of)
def test_dataset_is_one_word(file):
    assert re.findall(r"(?i)\bdata[ -]sets?\b", file.read_text(encoding="utf-8")) == []


def test_the_citation_names_the_version_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (citation["cff-version"], citation["type"]) == ("1.2.0", "software")
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert [work["title"] for work in citation["references"]] == ["Mechanistic Mode Connectivity"]
