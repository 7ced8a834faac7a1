"""Functions and class attributes that everything computes with: read, compared, and put back where replaced."""

import hashlib
import json
import random
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType, ModuleType, WrapperDescriptorType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

CORE, PLUGINS = "mmc_bench.", "mmc_bench_"

#: Modules of torch whose own functions its classes call.
OF_TORCH = ("torch.nn.modules.", "torch.optim.", "torch.autograd")
FUNCTIONS = (
    *(FunctionType, BuiltinFunctionType, MethodDescriptorType, WrapperDescriptorType),
    *(staticmethod, classmethod, ModuleType),
)
PLAIN = (bool, int, float, str)
CONSTANTS = (*PLAIN, tuple, type(None), property, type)

#: Begins the names of functions that dynamo puts into a module, and takes out again.
COMPILED = ("__compiled_fn", "__resume_")

#: Stands for what an owner lacks.
ABSENT: Any = object()

#: Modules and classes, each with its content.
Code = list[tuple[Any, dict[str, Any]]]


def code_of_all() -> Code:
    """Return what every method computes with: torch, NumPy, modules of Python, the core and all plugins."""
    return [(owner, vars(owner).copy()) for owner in _owners(len(sys.modules))]


def put_code_back(before: Code) -> None:
    """Give each module and class its content again."""
    for owner, name, value in _replaced(before):
        if value is ABSENT:
            delattr(owner, name)
        else:
            setattr(owner, name, value)


def replaced_code(name: str, before: Code, after: object) -> str | None:
    """Name what is no longer what it was before, for example ``"torch.nn.functional.relu"``."""
    names = [f"{_name(owner)}.{attribute}" for owner, attribute, _ in _replaced(before)]
    return ", ".join(dict.fromkeys(names)) or None


@lru_cache(maxsize=1)
def _owners(modules: int) -> tuple[Any, ...]:
    """Return the modules and classes whose content counts; `modules`, how many are imported, keys the cache."""
    found = [torch, torch.Tensor, functional, nn.init, np, np.random, random, *_classes(nn), *_classes(torch.optim)]
    found += [torch._C._nn, json, hashlib]
    for name, module in list(sys.modules.items()):
        if name.startswith(OF_TORCH) and isinstance(module, ModuleType):
            found.append(module)
        if name.startswith((CORE, PLUGINS)) and isinstance(module, ModuleType):
            found += [module, *(owner for owner in _classes(module) if owner.__module__ == name)]
    return tuple(dict.fromkeys(found))


def _classes(module: ModuleType) -> list[type]:
    return [value for value in vars(module).values() if isinstance(value, type)]


def _replaced(before: Code) -> Iterator[tuple[Any, str, Any]]:
    """Yield what has another value now: its owner, its name, and the value that it had."""
    for owner, content in before:
        now = vars(owner)
        if _is_same(now, content):
            continue
        kinds = _kinds(owner)
        for name, value in content.items():
            if _is_equal(now.get(name, ABSENT), value) or _is_usual(now.get(name), value) or name.startswith(COMPILED):
                continue
            if isinstance(value, FUNCTIONS) or (isinstance(value, kinds) and not name.startswith("__")):
                yield owner, name, value
        if isinstance(owner, type) and len(now) > len(content):
            for name in now.keys() - content.keys():
                inherited = next((vars(base)[name] for base in owner.__mro__[1:] if name in vars(base)), ABSENT)
                if isinstance(now[name], FUNCTIONS) and not _is_usual(now[name], inherited):
                    yield owner, name, ABSENT


def _kinds(owner: Any) -> tuple[type, ...]:
    """Return the types of values that count in a module or class.

    Constants count in classes and in the core's modules alone: a plugin may keep values in its own modules, and torch
    sets some in its.
    """
    if _name(owner).startswith(PLUGINS) or not (isinstance(owner, type) or _name(owner).startswith(CORE)):
        return FUNCTIONS
    return (*FUNCTIONS, *CONSTANTS)


def _is_same(now: Mapping[str, Any], before: dict[str, Any]) -> bool:
    """Compare two contents quickly; where comparing values fails, as it does for arrays, they count as different."""
    try:
        return bool(now == before)
    except Exception:  # a plugin's values may define == as they like
        return False


def _is_equal(now: Any, before: Any) -> bool:
    return now is before or (type(now) is type(before) and type(before) in PLAIN and bool(now == before))


def _is_usual(now: Any, before: Any) -> bool:
    """Tell whether torch itself wrapped a function: an optimiser's step when the first is made, others for dynamo."""
    module = str(getattr(now, "__globals__", {}).get("__name__", ""))
    wrapped = module.startswith("torch.") and getattr(now, "__wrapped__", ABSENT) is before
    return wrapped or module.startswith("torch._dynamo.")


def _name(owner: Any) -> str:
    return f"{owner.__module__}.{owner.__qualname__}" if isinstance(owner, type) else str(owner.__name__)
