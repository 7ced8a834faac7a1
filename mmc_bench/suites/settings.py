"""Settings that override a suite's, from the command line's ``--set`` or from a Python mapping; each is parsed once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from mmc_bench.errors import UserError, nearest
from mmc_bench.plugin.offers import Offer
from mmc_bench.plugin.registry import Registry
from mmc_bench.plugin.specs import SECTIONS

#: Settings of a suite itself that have no section. That of ``tune`` is the number of trials, 0 for none.
WHOLE = ("threads", "tune")


@dataclass(frozen=True)
class Setting:
    """One value that overrides a suite's or a plugin's default.

    Attributes
    ----------
    owner
        A section (``"pretrain"``), a part of one (``"connect.quadratic"``), a plugin's name or a glob over names
        (``"mine*"``), or ``""`` for the suite itself, which has those of `WHOLE`.
    name
        The key or parameter.
    value
        Plain data, as JSON has it.
    """

    owner: str
    name: str
    value: Any

    @classmethod
    def parse(cls, text: str) -> "Setting":
        """Return what ``"pretrain.epochs=5"`` says; the value is read as YAML, or as text where it is no YAML.

        Raises
        ------
        UserError
            When the text does not read KEY=VALUE, or the key has no owner.
        """
        import yaml

        from mmc_bench.system.yaml_files import parse_yaml

        key, equals, text_of_value = text.partition("=")
        try:
            value = parse_yaml(text_of_value)
        except yaml.YAMLError:
            value = text_of_value
        setting = cls._of(key.strip(), value)
        if setting is None or not equals:
            raise UserError(f"--set {text}: write SECTION.key=value or PLUGIN.parameter=value")
        return setting

    @classmethod
    def of(cls, key: str, value: Any, what: str = "set") -> "Setting":
        """Return the setting of a Python caller, ``("pretrain.epochs", 5)``; `what` is given with it, for messages.

        Raises
        ------
        UserError
            When the key has no owner.
        """
        setting = cls._of(key, value)
        if setting is None:
            raise UserError(f"{what} {key!r}: write 'SECTION.key' or 'PLUGIN.parameter'")
        return setting

    @classmethod
    def _of(cls, key: str, value: Any) -> "Setting | None":
        if not isinstance(key, str):
            return None
        owner, _, name = key.rpartition(".")
        return cls(owner, name, value) if name and (owner or key in WHOLE) else None

    @property
    def section(self) -> str:
        """The section that it is part of: ``"connect"`` for ``connect.quadratic.lr``; ``""`` for a plugin's."""
        first = self.owner.partition(".")[0]
        return first if first in SECTIONS else ""

    @property
    def plugin(self) -> str:
        """The name or glob of the plugins whose parameter it is; ``""`` for a suite's own setting."""
        return "" if self.section else self.owner

    def __str__(self) -> str:
        return f"{self.owner}.{self.name} = {self.value!r}".removeprefix(".")


def read_settings(given: Iterable[str] | Mapping[str, Any]) -> tuple[Setting, ...]:
    """Return the settings that texts (``"mine.lr=0.02"``) or a mapping (``{"mine.lr": 0.02}``) give, in their order.

    Raises
    ------
    UserError
        When one is malformed.
    """
    if isinstance(given, Mapping):
        return tuple(Setting.of(key, value) for key, value in given.items())
    if not isinstance(given, Iterable):
        raise UserError(f"set = {given!r}: give a mapping such as {{'pretrain.epochs': 5}}, or texts KEY=VALUE")
    return tuple(map(Setting.parse, given))


def divided(
    settings: Iterable[Setting], observers: Sequence[Offer], registry: Registry
) -> tuple[list[tuple[Offer, dict[str, Any]]], list[Setting]]:
    """Return the chosen observers, each with the parameters set for it, and the settings that are for no observer.

    Raises
    ------
    UserError
        When a setting is for an observer that is not chosen.
    """
    parameters: list[dict[str, Any]] = [{} for _ in observers]
    others = []
    for setting in settings:
        found = [place for place, offer in enumerate(observers) if setting.owner in offer.names]
        for place in found:
            parameters[place][setting.name] = setting.value
        if not found:
            _refuse_unchosen(setting, registry)
            others.append(setting)
    return list(zip(observers, parameters, strict=True)), others


def _refuse_unchosen(setting: Setting, registry: Registry) -> None:
    def offers(*kinds: str) -> bool:
        return any(setting.owner in offer.names for kind in kinds for offer in registry.offers(kind))

    if offers("observer") and not offers("dataset", "backbone", "method"):
        raise UserError(f"{setting}: observer {setting.owner} is not part of this run: add --observe {setting.owner}")


def refuse_unused(settings: Iterable[Setting], offers: Iterable[Offer]) -> None:
    """Refuse a setting that changes nothing because its plugin is not one of `offers`, those of the run.

    Raises
    ------
    UserError
        When there is one.
    """
    names = {name for offer in offers for name in offer.names}
    for setting in settings:
        if setting.plugin and not any(fnmatchcase(name, setting.plugin) for name in names):
            raise UserError(f"{setting}: {setting.plugin} is not part of this run: {nearest(setting.plugin, names)}")
