"""One worker's resources: the plugins, data and models that stay loaded between jobs."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from mmc_bench.data.groups import derive_groups
from mmc_bench.data.sources import Sources
from mmc_bench.data.splits import ExperimentData, derive_experiment
from mmc_bench.errors import UserError
from mmc_bench.plugin.offers import Offer
from mmc_bench.plugin.registry import Registry
from mmc_bench.results.canonical import canonical_json
from mmc_bench.results.jobs import Connection, Job, PluginRef, Pretraining, Probe, references_of
from mmc_bench.results.records import PretrainRecord
from mmc_bench.results.store import LostWeightsError, Store
from mmc_bench.results.versions import ChangedCoreError, core_source, versions_of_stages
from mmc_bench.seeds import derive_seed
from mmc_bench.system.devices import image_layout
from mmc_bench.system.imported_source import ImportedSource
from mmc_bench.system.process_state import Note, kept
from mmc_bench.system.streams import tell
from mmc_bench.training import Backbone
from mmc_bench.training.adapted import with_interface
from mmc_bench.training.interface import check_backbone, check_strides

Report = Callable[[dict[str, Any]], None]


@dataclass
class Resources:
    """One worker's resources. Loaded images and derived sets are kept until another cell needs others.

    `note` receives a sentence about what a dataset or backbone changed of the process, which is put back. `profile`
    asks for what a training uses of the device, which takes time to measure. `checkpoints` are the paths of the user's
    own checkpoints, by SHA-256. `core` is the source of the stages.
    """

    registry: Registry
    store: Store
    sources: Sources
    device: torch.device
    threads: int
    precision: str = "fp32"
    keep_weights: bool = False
    profile: bool = False
    checkpoints: Mapping[str, str] = field(default_factory=dict)
    note: Note = tell
    core: ImportedSource = field(default_factory=core_source)
    _once: dict[tuple[object, ...], Any] = field(default_factory=dict)
    _loaded: dict[str, Any] = field(default_factory=dict)
    _derived: dict[str, ExperimentData] = field(default_factory=dict)
    _tried: set[str] = field(default_factory=set)

    def forget(self) -> None:
        """Release the loaded images and derived sets; they are made again when a job needs them."""
        self._loaded.clear()
        self._derived.clear()
        self._once.clear()

    def once(self, make: Callable[[], Any], *what: object) -> Any:
        """Return what `make` returned when it was called for the same `what` and images, or call it now."""
        if what not in self._once:
            self._once[what] = make()
        return self._once[what]

    def offer(self, kind: str, reference: PluginRef) -> Offer:
        """Return what a plugin offers under a reference.

        Raises
        ------
        UserError
            When the plugin is gone, or is another version than the plan was made with.
        """
        offer = self.registry.get(kind, f"{reference.distribution}:{reference.name}")
        if offer.version != reference.version:
            raise UserError(
                f"{kind} {reference.name!r} changed from {reference.version} to {offer.version} during the run"
            )
        return offer

    def check_sources(self, job: Job | Connection | Probe) -> None:
        """Check that what was imported of the core and of a job's plugins is what the job's versions stand for.

        Raises
        ------
        ChangedCoreError
            When the core's files changed since the job was planned, and before some of them were imported.
        UserError
            When those of a plugin did.
        """
        if versions_of_stages(*job.versions) != job.versions or self.core.has_changed():
            raise ChangedCoreError
        for kind, reference in references_of(job):
            self.offer(kind, reference).check_source()

    def data(self, pretraining: Pretraining) -> ExperimentData:
        """Return the sets of an experiment, on the device."""
        with kept(f"dataset {pretraining.dataset.name}", self.note):
            return self._data(pretraining)

    def _data(self, pretraining: Pretraining) -> ExperimentData:
        dataset_key = canonical_json([pretraining.dataset.content(), pretraining.images])
        if dataset_key not in self._loaded:
            self.forget()
            offer = self.offer("dataset", pretraining.dataset)
            dataset = offer.make(offer.configure(pretraining.dataset.parameters))
            dataset.load(sources_of(offer, replace(self.sources, images=pretraining.images)))
            self._loaded[dataset_key] = dataset
        key = canonical_json([dataset_key, pretraining.data.content(), pretraining.cue_rate, pretraining.data_seed])
        if key not in self._derived:
            self._derived.clear()
            self._once.clear()
            self._derived[key] = self._derive(pretraining, self._loaded[dataset_key])
        return self._derived[key]

    def _derive(self, pretraining: Pretraining, dataset: Any) -> ExperimentData:
        settings, where = pretraining.data, (pretraining.data_seed, self.device, self.sources.memory)
        if pretraining.cue_rate is None:
            return derive_groups(dataset, settings, *where)
        return derive_experiment(dataset, settings, pretraining.cue_rate, *where)

    def model(self, pretraining: Pretraining, data: ExperimentData) -> Backbone:
        """Return a backbone with random weights, drawn from torch's global generator, on the device.

        Raises
        ------
        UserError
            When the plugin makes none, or one whose parts do not fit together.
        """
        offer = self.offer("backbone", pretraining.backbone)
        with kept(f"backbone {pretraining.backbone.name}", self.note):
            config = offer.configure(pretraining.backbone.parameters)
            if offer.digest_of_weights(pretraining.backbone.parameters) != pretraining.backbone.weights:
                raise UserError(f"the weights that backbone {offer.spec.name} starts from changed during the run")
            model: Backbone = offer.make(config, num_classes=data.num_classes, input_shape=data.input_shape)
        if not isinstance(model, nn.Module):
            raise UserError(f"backbone {offer.spec.name} made a {type(model).__name__}, not a torch.nn.Module")
        model = model.to(self.device).to(memory_format=image_layout(self.device))
        key = canonical_json([pretraining.backbone.content(), data.num_classes, data.input_shape])
        try:
            model = with_interface(model, data.num_classes, data.input_shape)
            if key not in self._tried:
                check_backbone(model, data.num_classes, data.input_shape)
                if self.precision == "bf16" and self.device.type == "cpu":
                    check_strides(model, data.input_shape)
        except UserError as error:
            raise UserError(f"backbone {offer.spec.name} cannot be trained: {error}") from error
        self._tried.add(key)
        return model

    def pretrained(self, pretraining: Pretraining, data: ExperimentData) -> tuple[Backbone, PretrainRecord]:
        """Return a pretrained model in eval mode, and its record.

        Raises
        ------
        LostWeightsError
            When its record or weights are gone or damaged.
        """
        record = self.store.find(pretraining)
        if not isinstance(record, PretrainRecord):
            message = f"the pretrained model {pretraining.label} is gone from {self.store.root}"
            raise LostWeightsError(message, pretraining)
        model = self.model(pretraining, data)
        model.load_state_dict(self.store.load_weights(record).tensors)
        return model.eval(), record

    def seed_everything(self, what: str, seed: int) -> tuple[int, torch.Generator]:
        """Seed the global generators of Python, NumPy and torch for a stage.

        Returns
        -------
        tuple
            The derived seed, and a generator on the device seeded with it.
        """
        derived = derive_seed(what, seed)
        random.seed(derived)
        np.random.seed(derived % 2**32)
        torch.manual_seed(derived)
        return derived, torch.Generator(device=self.device).manual_seed(derived)


def sources_of(offer: Offer, sources: Sources) -> Sources:
    """Return the sources that a dataset may read, with its layouts."""
    layouts = {name: layout for name in offer.spec.sources if (layout := offer.layout(name))}
    return replace(sources, allowed=offer.spec.sources, layouts=layouts)
