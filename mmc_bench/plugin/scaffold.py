"""Writing a plugin project to start from, out of the templates beside this module."""

import importlib.util
import keyword
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmc_bench.errors import UserError
from mmc_bench.plugin.specs import meaning_of

NAME = re.compile(r"[a-z][a-z0-9]*([._-][a-z0-9]+)*")
LONGEST_NAME = 40

#: What the written code imports: a class of one of these names would hide it.
TAKEN_CLASSES = frozenset(
    {"BaseConfig", "Backbone", "Callable", "Field", "ImageSources", "LabelledImages", "Task", "Width"}
)


@dataclass(frozen=True)
class Kind:
    """What is particular to projects of one kind: words of the README, and the option that selects the plugin."""

    noun: str
    what: str
    run: str


KINDS = {
    "method": Kind("fine-tuning method", "shrink the weights, perturb them, then fine-tune", "--methods {name}"),
    "dataset": Kind("dataset", "digits with a dash whose place tells the label", "--datasets {name}"),
    "backbone": Kind("backbone", "three convolutions and a linear layer", "--backbones {name}"),
}


@dataclass(frozen=True)
class Project:
    """A project to be written.

    Attributes
    ----------
    kind
        ``"method"``, ``"dataset"`` or ``"backbone"``.
    name
        Of the plugin, and of the project's folder.
    """

    kind: str
    name: str

    @property
    def package(self) -> str:
        """The Python package; its prefix keeps it from hiding another package."""
        return f"mmc_bench_{self.identifier}"

    @property
    def identifier(self) -> str:
        """The name as a part of Python names."""
        return re.sub("[.-]", "_", self.name)

    @property
    def classname(self) -> str:
        """The target's class."""
        return "".join(word[:1].upper() + word[1:] for word in re.split("[._-]", self.name))

    @property
    def run(self) -> str:
        """The command that makes the plugin's first row in the table."""
        return f"mmc-bench run {KINDS[self.kind].run.format(name=self.name)}"

    def check(self) -> None:
        """Raise a `UserError` unless the name can be that of a plugin, a package and a class."""
        if not NAME.fullmatch(self.name) or len(self.name) > LONGEST_NAME:
            raise UserError(
                f"{self.name!r} cannot be the name of a {self.kind}: write lower-case letters and digits, with single "
                f"-, _ or . between them, beginning with a letter, {LONGEST_NAME} at most"
            )
        if meaning := meaning_of(self.kind, self.name):
            raise UserError(f"{self.kind} name {self.name!r} {meaning}: choose another name")
        if keyword.iskeyword(self.classname) or self.classname in TAKEN_CLASSES:
            raise UserError(
                f"{self.name!r} would name a class {self.classname}, which Python or the written code needs for "
                "something else: choose another name"
            )
        if importlib.util.find_spec(self.package) is not None:
            raise UserError(
                f"{self.name!r} would make a package {self.package}, and one of that name is installed already: choose "
                "another name"
            )

    def files(self) -> Iterator[tuple[str, str]]:
        """Yield the project's files: path and content."""
        import jinja2

        loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
        templates = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
        words = {
            **vars(KINDS[self.kind]),
            **vars(self),
            **{word: getattr(self, word) for word in ("package", "identifier", "classname", "run")},
            "distribution": f"mmc-bench-{re.sub('[._]', '-', self.name)}",
            "module": self.kind,
        }
        for path, template in (
            ("pyproject.toml", "project/pyproject.toml.j2"),
            ("README.md", "project/README.md.j2"),
            (f"{self.package}/__init__.py", f"{self.kind}/init.py.j2"),
            (f"{self.package}/{self.kind}.py", f"{self.kind}/module.py.j2"),
            (f"tests/test_{self.identifier}.py", f"{self.kind}/test.py.j2"),
        ):
            yield path, templates.get_template(template).render(words)

    def write(self, into: Path) -> Path:
        """Write the project into a new folder below `into`, and return the folder.

        Raises
        ------
        UserError
            When the name cannot be used, the folder exists, or it cannot be written.
        """
        self.check()
        folder = into / self.name
        try:
            if folder.exists() or folder.is_symlink():
                raise UserError(f"{folder} exists already: choose another name, or another place with --into DIR")
            for path, content in self.files():
                file = folder / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(content, encoding="utf-8", newline="\n")
        except OSError as error:
            raise UserError(
                f"{folder} cannot be written ({error.strerror}): choose another place with --into DIR"
            ) from None
        return folder
