"""Where a measurement runs, and where its results go."""

import json
from pathlib import Path
from typing import Any

import click
import torch

from mmc_bench.errors import UserError
from mmc_bench.running.devices import resolve_device


def there(context: click.Context, parameter: click.Parameter, device: str) -> str:
    """Return the device after an option, which must be there; a callback of `click.option`."""
    try:
        return resolve_device(device)
    except UserError as error:
        raise click.BadParameter(str(error)) from None


def current(device: str) -> torch.device:
    """Return a device with its index, torch's current GPU from now on."""
    place = torch.device(device)
    if place.type == "cuda":
        place = torch.device("cuda", place.index or 0)
        torch.cuda.set_device(place)  # CUDA graphs and streams are made on the current one
    return place


def write_json(file: Path, content: Any) -> None:
    """Write results as JSON: the file has all of them, or what it had before."""
    text = json.dumps(content, indent=1) + "\n"
    if file.exists() and not file.is_file():  # /dev/stdout, say
        file.write_text(text, encoding="utf-8")
        return
    new = file.with_name(file.name + ".new")
    new.write_text(text, encoding="utf-8")
    new.replace(file)
