"""Reading YAML files: numbers as people write them, and mistakes answered in one sentence."""

import re
from pathlib import Path
from typing import Any

import yaml

from mmc_bench.errors import UserError

LONGEST = 300  # letters of what is quoted in a message


class Loader(yaml.SafeLoader):
    """Reads 1e-4 as a number, as YAML 1.2 does, and refuses a mapping with one key twice and numbers beyond use."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping, every key of which is there once."""
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                problem = f"the key {key.value!r} is there twice"
                raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Return the whole number; Python refuses to print those of thousands of digits."""
        value = int(super().construct_yaml_int(node))
        if abs(value) >= 2**64:
            raise yaml.constructor.ConstructorError(problem="the number is too large", problem_mark=node.start_mark)
        return value


Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_yaml_int)
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), [*"-+.0123456789"]
)


def read_yaml(file: Path, kind: str) -> Any:
    """Return what a YAML file holds.

    Parameters
    ----------
    kind
        What the file is to the user, for messages: ``"suite file"``.

    Raises
    ------
    UserError
        When it cannot be read or is no YAML; the message names the file and the line.
    """
    try:
        return yaml.load(file.read_text(encoding="utf-8"), Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{kind} {file} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = str(getattr(error, "problem", None) or error)
        raise UserError(f"{file}{where}: not valid YAML: {problem[:LONGEST]}") from None
    except RecursionError:
        raise UserError(f"{file}: not valid YAML: nested too deep") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # What PyYAML raises for a value that is not of its tag: a 13th month, !!int without a digit.
        raise UserError(f"{file}: not valid YAML: a value cannot be read ({str(error)[:LONGEST]})") from None
