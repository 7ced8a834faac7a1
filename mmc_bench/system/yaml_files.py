"""YAML 1.2: values of the core schema, numbers as people write them, and mistakes answered in one sentence."""

from pathlib import Path
from typing import Any

import yaml
import yamlcore

from mmc_bench.errors import UserError
from mmc_bench.system.files import read_whole

LONGEST = 300  # letters of what is quoted in a message
LARGEST_FILE = 2**20  # bytes
MOST_NODES = 200_000  # values of a file, each counted as often as aliases repeat it


class Loader(yamlcore.CoreLoader):  # type: ignore[misc] # yamlcore has no annotations
    """Reads the core schema of YAML 1.2; refuses a mapping with one key twice, and numbers beyond use.

    ``010`` is 10, ``0o10`` is 8 and ``1e3`` is 1000; ``yes``, ``1:30``, ``1_000`` and dates are text. Aliases
    may repeat a value, but neither within itself nor so often that a short file is a huge one.
    """

    def get_single_node(self) -> yaml.Node | None:
        """Return the document's node, the size of which is bounded."""
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            _count(node, {})
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping, every key of which is there once."""
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                problem = f"the key {key.value!r} is there twice"
                raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping

    def construct_whole_number(self, node: yaml.ScalarNode) -> int:
        """Return the whole number; Python refuses to print those of thousands of digits."""
        value = int(super().construct_yaml_int_core(node))
        if abs(value) >= 2**64:
            raise yaml.constructor.ConstructorError(problem="the number is too large", problem_mark=node.start_mark)
        return value


def _count(node: yaml.Node, known: dict[yaml.Node, int]) -> int:
    """Return how many values a node stands for, itself included; `known` are those of nodes met before."""
    if node not in known:
        known[node] = 0  # while it is being counted
        inner = [] if isinstance(node, yaml.ScalarNode) else node.value
        inner = [part for pair in inner for part in pair] if isinstance(node, yaml.MappingNode) else inner
        known[node] = 1 + sum(_count(part, known) for part in inner)
    if not 0 < known[node] <= MOST_NODES:
        problem = "its aliases repeat too much" if known[node] else "an alias repeats a value within itself"
        raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark)
    return known[node]


Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_whole_number)


class Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 would read as something else, so that readers of either get it back."""


for _first, _resolvers in yamlcore.CoreLoader.yaml_implicit_resolvers.items():
    for _tag, _pattern in _resolvers:
        Dumper.add_implicit_resolver(_tag, _pattern, [_first])


def yaml_of(content: Any, **layout: Any) -> str:
    """Return plain data as YAML; `layout` is passed on to ``yaml.dump``."""
    text: str = yaml.dump(content, Dumper=Dumper, allow_unicode=True, **layout)
    return text


def read_yaml(file: Path, kind: str) -> Any:
    """Return what a YAML file holds.

    Parameters
    ----------
    kind
        What the file is to the user, for messages: ``"suite file"``.

    Raises
    ------
    UserError
        When it cannot be read, is too large or is no YAML; the message names the file and the line.
    """
    try:
        content = read_whole(file)
        if len(content) > LARGEST_FILE:
            raise UserError(f"{file} is larger than {LARGEST_FILE} bytes, and no {kind}")
        return parse_yaml(content.decode("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{kind} {file} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = str(getattr(error, "problem", None) or error)
        raise UserError(f"{file}{where}: not valid YAML: {problem[:LONGEST]}") from None


def parse_yaml(text: str) -> Any:
    """Return what YAML text says.

    Raises
    ------
    yaml.YAMLError
        When it is no YAML, nested too deep, or has a value that is not of its tag.
    """
    try:
        return yaml.load(text, Loader)
    except RecursionError:
        raise yaml.YAMLError("nested too deep") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # What PyYAML raises for a value that is not of its tag: !!int without a digit, !!bool yes.
        raise yaml.YAMLError(f"a value cannot be read ({error})") from None
