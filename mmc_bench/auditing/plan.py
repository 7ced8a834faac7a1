"""What an audit runs: one backbone trained with each kind of cue at each strength, and once without any."""

from collections.abc import Sequence
from dataclasses import fields, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mmc_bench.auditing.folders import about_steps, data_for, pixels_for
from mmc_bench.data.class_folders import ClassFolders, is_class_folder, read_class_folders
from mmc_bench.data.locations import KNOWN_SOURCES
from mmc_bench.errors import UserError
from mmc_bench.running.session import Session
from mmc_bench.suites.axes import setting_of
from mmc_bench.system.streams import notice

if TYPE_CHECKING:
    from mmc_bench.results.jobs import Pretraining
    from mmc_bench.suites.plan import Plan
    from mmc_bench.suites.suite import Suite

AUDIT_SUITE = "audit"

#: The parameter by which datasets of images of any size resize them.
PIXELS = "pixels"


class AuditSession(Session):
    """The session of an audit: its suite has one axis, a parameter of its datasets that is how strong their cue is."""

    @classmethod
    def auditing(cls, session: Session) -> "AuditSession":
        """Return a session as that of an audit, of the suite `AUDIT_SUITE` unless another is named."""
        given = {field.name: getattr(session, field.name) for field in fields(session)}
        return cls(**{**given, "suite": session.suite or AUDIT_SUITE})

    @cached_property
    def plan(self) -> "Plan":
        """The suite at all strengths, and the networks that never see a cue.

        Raises
        ------
        UserError
            When the images are not given or too few, or the suite is none of an audit.
        """
        plan = self.plan_of(self._fitted(self._suite()))
        networks = {pretraining.network for pretraining in plan.pretrainings}
        if len(networks) > 1:
            raise UserError(f"an audit is of one backbone, not of {', '.join(sorted(networks))}")
        for pretraining in plan.pretrainings:
            if pretraining.cue_rate is None:
                raise UserError(f"dataset {pretraining.dataset.name} has groups and no cue that could be planted")
        self._check_strengths(plan.suite)
        return replace(plan, pretrainings=(*references(plan), *plan.pretrainings))

    @cached_property
    def folders(self) -> dict[str, ClassFolders]:
        """The class folders that were given, by image source."""
        return {name: read_class_folders(Path(path)) for name, path in self.data.items() if is_class_folder(Path(path))}

    def _fitted(self, suite: "Suite") -> "Suite":
        """Return the suite with sizes for the images at hand, where it would take more of them or larger ones."""
        from mmc_bench.suites.suite import overridden

        _, settings = self._divided
        asked = overridden(suite, self.lists, settings, self.origin, self.axes)
        _check(asked)
        self._check_given(asked.datasets)
        parameters = dict(asked.parameters)
        sized = any(setting.plugin and setting.name == PIXELS for setting in settings)
        for name, folder in self.folders.items():
            suite = replace(suite, data=data_for(asked.data, folder, notice))
            if few := about_steps(asked.pretrain, suite.data, folder):
                notice(few)
            side = None if sized or name in KNOWN_SOURCES else pixels_for(folder)
            if side is not None:
                readers = [one for one in self.registry.select("dataset", asked.datasets) if name in one.spec.sources]
                parameters |= {one.spec.name: {**parameters.get(one.spec.name, {}), PIXELS: side} for one in readers}
                notice(
                    f"{folder.root}: images are resized to {side}x{side}; "
                    f"--set {readers[0].spec.name}.{PIXELS}=N chooses another size"
                )
        return replace(suite, parameters=parameters)

    def _check_strengths(self, suite: "Suite") -> None:
        key = next(iter(suite.axes))
        pattern = setting_of(key, None).plugin
        for offer in self.registry.select("dataset", suite.datasets):
            if not any(fnmatchcase(name, pattern) for name in offer.names):
                name = offer.spec.name
                raise UserError(f"this audit's axis, {key}, does not reach dataset {name}: leave that dataset out")

    def _check_given(self, datasets: Sequence[str]) -> None:
        for name in self.wanted_sources(datasets):
            if name not in self.data and name not in KNOWN_SOURCES:
                raise UserError(f"an audit plants cues in your images: give them with --data {name}=DIR")


def references(plan: "Plan") -> "tuple[Pretraining, ...]":
    """Return the pretrainings of networks that never see a cue, one for each seed.

    Without cues it does not matter which kind would have been planted: they are those of the first.
    """
    first = {pretraining.seed: pretraining for pretraining in reversed(plan.pretrainings)}
    return tuple(
        first[seed].with_changes(cue_rate=0.0, data=first[seed].data.with_changes(minority="uncued"))
        for seed in sorted(first)
    )


def _check(suite: "Suite") -> None:
    """Refuse a suite that is none of an audit, by a `UserError` that says what it lacks."""
    if len(suite.cue_rates) != 1 or not suite.cue_rates[0]:
        raise UserError("an audit has one cue rate above 0: give it with --cue-rates")
    if suite.tune or suite.pairs:
        raise UserError(f"an audit neither tunes methods nor compares pairs, as suite {suite.name} does")
    if len(suite.axes) != 1:
        raise UserError(f"an audit has one axis, how strong its cues are: suite {suite.name} has {len(suite.axes)}")
    key, values = next(iter(suite.axes.items()))
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if not setting_of(key, None).plugin or len(numbers) < len(values):
        raise UserError(f"axis {key} of an audit must be how strong its datasets' cues are, in numbers")
