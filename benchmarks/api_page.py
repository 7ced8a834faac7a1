"""``python -m benchmarks.api_page``: write the API page, docs/api.md, from the docstrings."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mmc_bench
from mmc_bench.auditing.report import Audited
from mmc_bench.report.pictures import Picture, Pictures
from mmc_bench.running.connecting import Connected
from mmc_bench.running.interactive import InteractiveTask
from mmc_bench.running.outcome import PrintedTable
from mmc_bench.running.preview import Preview
from mmc_bench.running.probing import Probed

PAGE = Path(__file__).parent / "docs" / "api.md"

RETURNED = "What they return"

GROUPS: dict[str, tuple[Any, ...]] = {
    "Running and reading": (mmc_bench.run, mmc_bench.dry_run, mmc_bench.load, mmc_bench.list, mmc_bench.plot),
    "Auditing": (mmc_bench.audit,),
    "Developing a method": (mmc_bench.task, mmc_bench.score, mmc_bench.connect, mmc_bench.probe, mmc_bench.gallery),
    RETURNED: (
        mmc_bench.Results,
        Audited,
        Preview,
        InteractiveTask,
        Connected,
        Probed,
        Picture,
        Pictures,
        PrintedTable,
    ),
    "Writing a plugin": (
        mmc_bench.MethodSpec,
        mmc_bench.DatasetSpec,
        mmc_bench.BackboneSpec,
        mmc_bench.ObserverSpec,
        mmc_bench.BaseConfig,
        mmc_bench.LogUniform,
        mmc_bench.Uniform,
        mmc_bench.Choice,
        mmc_bench.UserError,
    ),
}

HEAD = """# Python API

<!-- written by python -m benchmarks.api_page; edit the docstrings instead -->

What the command line answers with exit code 4 or 5 is an `mmc_bench.UserError` here: one sentence that says what was
wrong and what to do. [first_method.ipynb](../first_method.ipynb) shows it at work. All names but those under
"What they return" are imported from `mmc_bench`; so is `hookimpl`, which marks the hooks of a plugin.
"""

SECTION = re.compile(r"^(\w+)\n-+\n", re.MULTILINE)


def page() -> str:
    """Return the page as Markdown."""
    contents, parts = [], []
    for group, values in GROUPS.items():
        contents.append(f"{group}: " + " · ".join(f"[`{name}`](#{anchor(name)})" for name in map(_name, values)))
        parts.append(f"## {group}\n")
        parts += [_described(value) for value in values]
    return "\n".join([HEAD, "\n\n".join(contents), "", *parts]).rstrip() + "\n"


def anchor(name: str) -> str:
    """Return what a heading of this name is linked by."""
    return name.lower().replace(".", "")


def _name(value: Any) -> str:
    module = value.__module__
    return f"mmc_bench.{value.__name__}" if module.startswith("mmc_bench.api.") else str(value.__name__)


def _described(value: Any) -> str:
    doc = inspect.getdoc(value) or ""
    lines = [f"### {_name(value)}\n"]
    if value not in GROUPS[RETURNED]:
        lines.append(f"```python\n{_signature(value)}\n```\n")
    lines.append(_body(doc))
    if isinstance(value, type):
        for name, member in vars(value).items():
            if name.startswith("_") or not _has_own_doc(member):
                continue
            if inspect.isfunction(member):
                lines.append(f"**`.{name}{_arguments(member)}`**\n\n{_body(inspect.getdoc(member) or '')}")
            elif "Attributes\n" not in doc:
                lines.append(f"**`.{name}`**: {inspect.getdoc(member)}\n")
    return "\n".join(lines)


def _has_own_doc(member: Any) -> bool:
    return bool(inspect.getdoc(member)) and (inspect.isfunction(member) or isinstance(member, property))


def _signature(value: Any) -> str:
    shown = f"{_name(value)}{_arguments(value)}"
    if len(shown) <= 100:
        return shown
    arguments = [f"    {part}," for part in _arguments(value)[1:-1].split(", ")]
    return "\n".join([f"{_name(value)}(", *arguments, ")"])


def _arguments(value: Any) -> str:
    """Return a signature without types, which the text below it says."""
    try:
        signature = inspect.signature(value)
    except ValueError:
        return "()"
    empty = inspect.Parameter.empty
    parameters = [one.replace(annotation=empty) for name, one in signature.parameters.items() if name != "self"]
    shown = str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))
    return re.sub(r"<factory>|<[^>]*>", "…", shown)


def _body(doc: str) -> str:
    """Return a numpydoc docstring as Markdown: its text, then each section as a list, the examples as code."""
    text, *sections = SECTION.split(doc)
    lines = [_inline(text.strip()) + "\n"]
    for title, content in zip(sections[::2], sections[1::2], strict=True):
        lines.append(f"{title}:\n")
        lines += list(_examples(content)) if title == "Examples" else ["\n".join([*_items(content), ""])]
    return "\n".join(lines)


def _items(content: str) -> Iterator[str]:
    """Yield a numpydoc section's entries as items of a list."""
    for entry in re.split(r"\n(?=\S)", content.strip("\n")):
        head, _, text = entry.partition("\n")
        words = " ".join(_inline(text).split())
        name, _, kind = head.partition(" : ")
        if head.endswith(".") and not text:  # a sentence after the list
            yield f"\n{_inline(head)}"
            continue
        names = ", ".join(f"`{part.strip()}`" for part in name.split(","))
        yield f"- {names}{f' ({kind})' if kind else ''}{f': {words}' if words else ''}"


def _examples(content: str) -> Iterator[str]:
    for block in re.split(r"\n\n", content.strip("\n")):
        yield f"```python\n{block}\n```\n" if block.startswith(">>>") else f"{_inline(block)}\n"


def _inline(text: str) -> str:
    return text.replace("``", "`")


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
