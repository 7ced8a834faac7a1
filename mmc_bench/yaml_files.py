"""Reading YAML files: numbers as people write them, and mistakes answered in one sentence."""

import re
from pathlib import Path
from typing import Any

import yaml

from mmc_bench.errors import UserError


class Loader(yaml.SafeLoader):
    """Reads 1e-4 as a number, as YAML 1.2 does, and refuses a mapping with one key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping, every key of which is there once."""
        keys = [key for key, _ in node.value]
        for position, key in enumerate(keys):
            if key.value in (earlier.value for earlier in keys[:position]):
                problem = f"the key {key.value!r} is there twice"
                raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)


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
        raise UserError(f"{file}{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
