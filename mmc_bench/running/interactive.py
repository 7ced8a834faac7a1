"""What a method gets, in this process: to develop it on, to score what it returns, and to look at the images."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import nn

from mmc_bench.data.groups import GroupedData
from mmc_bench.data.locations import check_present
from mmc_bench.data.sources import Sources
from mmc_bench.data.splits import ExperimentData
from mmc_bench.engines.worker import open_resources
from mmc_bench.errors import UserError
from mmc_bench.mechanisms.verdicts import way_back
from mmc_bench.plugin.offers import one_line
from mmc_bench.plugin.specs import NEEDS, checked_needs
from mmc_bench.report.gallery import draw_gallery
from mmc_bench.report.other_cue import with_reliance
from mmc_bench.report.pictures import Picture
from mmc_bench.report.probed import ProbedModel
from mmc_bench.report.rows import PRETRAINED, cue_reliance
from mmc_bench.results.jobs import Checkpoint, Pretraining
from mmc_bench.results.metrics import SPLITS, accuracies_of
from mmc_bench.results.probes import Hold
from mmc_bench.results.weights import checksum_of
from mmc_bench.running.connecting import LONGEST_NAME, Connected, End, PathChanges, measure
from mmc_bench.running.devices import resolve_device
from mmc_bench.running.launch import Computing, run_session, share_cores, worker_settings
from mmc_bench.running.lines import LineDisplay
from mmc_bench.running.probing import Probed, Prober
from mmc_bench.running.session import Session
from mmc_bench.stages.checkpoints import PATHS, locate
from mmc_bench.stages.finetune import task_of
from mmc_bench.stages.resources import Resources
from mmc_bench.suites.plan import Plan
from mmc_bench.training import Backbone, Task
from mmc_bench.training.evaluate import eval_mode, evaluate
from mmc_bench.training.precision import arithmetic

#: Experiments that a message names.
MOST_NAMED = 4


@dataclass(frozen=True)
class Experiment:
    """A pretrained model and its data, and where they come from."""

    session: Session
    plan: Plan
    computing: Computing
    resources: Resources
    pretraining: Pretraining
    data: ExperimentData
    pretrained: Backbone


@dataclass(frozen=True, repr=False)
class InteractiveTask(Task):
    """The `Task` of a method, with the experiment that scores and connects models.

    Attributes
    ----------
    model : torch.nn.Module
        The pretrained model, in training mode, to change and return.
    pretrained : torch.nn.Module
        The same, frozen, in eval mode.
    clean, validation : CuedImages
        Training images (N, C, H, W), cue-free by default, and another such set: ``shuffled(batch_size, generator)``
        yields batches, ``batch(rows)`` returns one.
    cued : CuedImages
        The cued pretraining images; ``environments`` (N,) says which carry their own cue.
    num_classes : int
        K.
    generator : torch.Generator
        The source of randomness, on `device`.
    progress : Progress
        Counts epochs and steps.
    """

    experiment: Experiment | None = None

    def fresh(self) -> "InteractiveTask":
        """Return the task as new: the model is the pretrained one again, and every generator is seeded as for a run."""
        return _fresh(the_experiment(self), self.needs)

    def __repr__(self) -> str:
        sets = {"clean": self.clean, "validation": self.validation}
        sizes = ", ".join(f"{len(images)} {name} images" for name, images in sets.items())
        return f"task {the_experiment(self).pretraining.label}: {sizes}, {self.num_classes} classes"


def open_task(
    session: Session, computing: Computing, display: LineDisplay, needs: str | Iterable[str] | None
) -> InteractiveTask:
    """Return the task of a session's one experiment, which is pretrained now unless its model is at hand.

    Raises
    ------
    UserError
        When the session has several experiments, or the pretraining fails.
    """
    whole = session.plan.suite
    selection = {"backbones": session.selection.get("backbones", ())}  # which no plugin may register
    session = replace(session, suite=replace(whole, methods=(), pairs=()), selection=selection, settings=())
    plan = session.plan
    if len(plan.pretrainings) != 1:
        labels = [pretraining.label for pretraining in plan.pretrainings]
        named = ", ".join(labels if len(labels) <= MOST_NAMED else [*labels[:MOST_NAMED], "…"])
        raise UserError(
            f"{len(labels)} experiments are selected ({named}): name one dataset, backbone, cue rate and seed"
        )
    try:
        wanted = checked_needs(NEEDS if needs is None else needs, "the task's method")
    except (TypeError, ValueError) as error:
        raise UserError(f"needs = {needs!r}: {error}") from None
    summary = run_session(session, replace(computing, workers=0), display)
    if summary.interrupted:
        raise KeyboardInterrupt
    for failure in summary.failures:
        raise UserError(f"{failure.label}: {failure.error}")
    device = resolve_device(computing.device)
    _, threads = share_cores((device,), 1, computing.threads or whole.threads)
    computing = replace(computing, device=device, threads=threads)
    resources = open_resources(worker_settings(session, computing), session.registry)
    pretraining = plan.pretrainings[0]
    data = resources.data(pretraining)
    pretrained, _ = resources.pretrained(pretraining, data)
    experiment = Experiment(session, plan, computing, resources, pretraining, data, pretrained)
    return _fresh(experiment, wanted)


def _fresh(experiment: Experiment, needs: frozenset[str]) -> InteractiveTask:
    of = experiment
    task, _ = task_of(of.pretraining, of.pretrained, of.data, of.resources, needs)
    own = {field.name: getattr(task, field.name) for field in dataclasses.fields(task)}
    return InteractiveTask(**own, experiment=experiment)


def the_experiment(task: object) -> Experiment:
    """Return a task's experiment.

    Raises
    ------
    UserError
        When it is none of `mmc_bench.task`.
    """
    if not isinstance(task, InteractiveTask) or task.experiment is None:
        raise UserError(f"{type(task).__name__} is no task of mmc_bench.task(…): score and connect need one")
    return task.experiment


def scores_of_model(model: nn.Module, task: object) -> Mapping[str, float]:
    """Return the accuracies of a model on the four splits, the worst of NC, C and RC, and its cue reliance.

    Where the dataset has further test sets, the accuracies on these follow, and the reliance on a second cue.

    Where test images come in groups, these are the worst group, the mean, and the aligned and conflicting images.

    Raises
    ------
    UserError
        When the model is none, or its loss is not finite.
    """
    experiment = the_experiment(task)
    if not isinstance(model, nn.Module):
        raise UserError(f"{type(model).__name__} is no model: score takes a torch.nn.Module")
    sets = {**experiment.data.rendered, **experiment.data.other_tests}
    with arithmetic(experiment.resources.precision, experiment.resources.device):
        _check_logits(model, experiment.data)
        scores = {name: evaluate(model, images) for name, images in sets.items()}
    if isinstance(experiment.data, GroupedData):
        return accuracies_of(experiment.data.scored(scores))
    found = {name: scores[name].accuracy for name in SPLITS}
    worst = min(found[name] for name in ("NC", "C", "RC"))
    num_classes = experiment.data.num_classes
    others = {name: scores[name].accuracy for name in experiment.data.other_tests}
    return {
        **found,
        "worst_split": worst,
        "cue_reliance": cue_reliance(found["RI"], num_classes),
        **with_reliance(others, found, num_classes),
    }


def _check_logits(model: nn.Module, data: ExperimentData | GroupedData) -> None:
    """Raise a `UserError` where a model does not give logits (2, K) of two images."""
    images, _ = data.validation.batch(slice(2))
    shape, wanted = tuple(images.shape), (len(images), data.num_classes)
    try:
        with eval_mode(model), torch.no_grad():
            logits = model(images)
    except Exception as error:
        raise UserError(f"the model fails on images {shape} of {images.dtype}: {one_line(error)}") from error
    found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if found != wanted:
        raise UserError(f"the model returns {found} for {len(images)} images: logits {wanted} are wanted")


def end_of(model: Any, name: str, session: Session) -> End:
    """Return one of two models to connect: a module, or what a key, record's file or safetensors file points at."""
    if isinstance(model, nn.Module):
        weights = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
        return End(Checkpoint(label=f"model {name}", weights_sha256=checksum_of(weights)), weights, name)
    if not isinstance(model, str):
        raise UserError(f"{type(model).__name__} is no model: connect takes a torch.nn.Module, a key or a file's path")
    source = locate(model, session.store)
    return End(*source.read(), source.name[:LONGEST_NAME])


def connect_on(task: object, models: tuple[Any, Any], changes: PathChanges) -> Connected:
    """Return the paths between two models on a task's data; by default those that the command line measures.

    Raises
    ------
    UserError
        When one is no model of the task's architecture.
    """
    of = the_experiment(task)
    ends = [end_of(model, name, of.session) for model, name in zip(models, "AB", strict=True)]
    changes = changes if changes.paths else replace(changes, paths=PATHS)
    return measure(of.session, of.plan, ends, changes, of.computing)


def probe_on(task: object, models: Any) -> Probed:
    """Return what became of the cue in models of a task's architecture: one, or several by their names.

    Raises
    ------
    UserError
        When one is no model of the task's architecture, or images come in groups.
    """
    of = the_experiment(task)
    if of.pretraining.cue_rate is None:
        raise UserError(f"{of.pretraining.dataset.name}: groups and no counterfactuals, which a probe is about")
    named = models if isinstance(models, Mapping) else {"model": models}
    for name, model in named.items():
        if not isinstance(model, nn.Module):
            raise UserError(f"{name} is a {type(model).__name__}: probe takes torch.nn.Modules by name")
    prober = Prober(of.session, of.computing)
    prober.prepare([of.pretraining])

    def hold_of(model: nn.Module, name: str) -> Hold:
        end = end_of(model, name, of.session)
        return prober.hold(of.pretraining, end.checkpoint, lambda: end.tensors)

    references = hold_of(of.pretrained, PRETRAINED), prober.cue_free(of.pretraining)
    probed = []
    for name, model in named.items():
        own = hold_of(model, name)
        path = connect_on(task, (of.pretrained, model), PathChanges.of("linear")).record.comparison.paths["linear"].test
        probed.append(ProbedModel(name, of.pretraining, own, *references, *way_back(path)))
    return Probed(tuple(probed), prober.computed, of.session.store.root)


def gallery(session: Session, download: bool = True) -> Iterator[Picture]:
    """Draw each dataset's test splits at its first seed, as a run with the same settings would make them."""
    plan = session.plan
    check_present(session.data, session.wanted_sources(plan.suite.datasets), download)
    sources = Sources(dict(session.data), download)
    resources = Resources(session.registry, session.store, sources, device=torch.device("cpu"), threads=1)
    for _, group in groupby(plan.pretrainings, key=lambda pretraining: pretraining.dataset.name):
        yield picture_of(next(group), resources)


def picture_of(pretraining: Pretraining, resources: Resources) -> Picture:
    """Draw test images of each class on all test sets of an experiment."""
    name = pretraining.dataset.name
    if pretraining.cue_rate is None:
        raise UserError(f"{name} has groups and no counterfactuals: there are no four splits of it to draw")
    data = resources.data(pretraining)
    return Picture(f"images-{name}", partial(draw_gallery, name, {**data.splits, **data.other_tests}))
