"""A job from its data to its record: each stage in its turn, and what one hands to the next."""

from collections.abc import Callable
from functools import partial

from mmc_bench.landscape.effects import effects
from mmc_bench.landscape.invariance import invariances
from mmc_bench.landscape.measure import path_images
from mmc_bench.results.jobs import Cell, Job, Pair, Pretraining, Trial
from mmc_bench.results.records import AnyRecord, CellRecord, PairRecord, PretrainRecord, TrialRecord
from mmc_bench.stages.assembly import Assembly
from mmc_bench.stages.connect import compare, connect, path_seeds
from mmc_bench.stages.finetune import fine_tune
from mmc_bench.stages.own_weights import first_model
from mmc_bench.stages.predictions import Probabilities, kept_predictions
from mmc_bench.stages.pretrain import pretrain
from mmc_bench.stages.provenance import experiment_seeds
from mmc_bench.stages.resources import Report, Resources
from mmc_bench.stages.score import score, worst_group
from mmc_bench.training import NonFiniteLossError, Progress
from mmc_bench.training.evaluate import evaluate_sets, predictions_on
from mmc_bench.training.precision import arithmetic
from mmc_bench.training.returned import FINITE, UnfitModelError

#: Saves the weights and predictions of a job under way, if they are to be kept, and makes its record.
Finish = Callable[[], AnyRecord]


def do_job(job: Job, resources: Resources, report: Report) -> AnyRecord:
    """Do a job, save its record and return it. The caller holds the job's lease."""
    resources.check_sources(job)
    if isinstance(job, Pretraining):
        finish = _pretraining(job, resources, report)
    elif isinstance(job, Cell):
        finish = _cell(job, resources, report)
    elif isinstance(job, Trial):
        finish = _trial(job, resources, report)
    else:
        finish = _pair(job, resources, report)
    resources.check_sources(job)  # more may have been imported at any time
    made = resources.store.done(job)
    if made is not None:  # by another run, while this one slept and lost its lease
        return made
    record = finish()
    resources.store.save(record)
    return record


def _pretraining(job: Pretraining, resources: Resources, report: Report) -> Finish:
    assembly = Assembly(job, resources, experiment_seeds(job))
    data = resources.data(job)
    assembly.lap("data")
    kept = resources.store.kept_weights(job, None, lambda message: report({"note": message}))
    first = partial(first_model, job, data, resources, report)
    with arithmetic(resources.precision, resources.device):
        if kept is not None:
            weights, origin = kept
            assembly.kept(origin)
            model, curve = resources.model(job, data).eval(), origin.curve
            model.load_state_dict(weights.tensors)
        elif job.checkpoint is not None:
            model, curve = first(), ()
            origin = assembly.origin(key=job.weights_key)
        else:
            model, curve, progress, curve_seconds, budget = pretrain(job, data, resources, report, first)
            assembly.trained(progress, budget)
            assembly.lap("pretrain", {"curve": curve_seconds})
            assembly.profile(model, data.pretraining)
            origin = assembly.origin(key=job.weights_key, curve=curve)
        report({"stage": "score"})
        probabilities: Probabilities | None = {} if resources.store.keep_predictions else None
        metrics, predictions = score(model, data, data.pretraining, probabilities)
        assembly.lap("score")

    def finish() -> PretrainRecord:
        store = resources.store
        store.save_predictions(job, kept_predictions(data, predictions, probabilities))
        return assembly.record(
            PretrainRecord,
            pretraining=job,
            num_classes=data.num_classes,
            weights_sha256=kept[0].sha256 if kept else store.save_weights(job, model.state_dict(), origin),
            metrics=metrics,
            worst_group=worst_group(data, metrics, predictions),
            invariance=invariances(metrics.splits),
            curve=curve,
            budget=assembly.budget,
        )

    return finish


def _cell(job: Cell, resources: Resources, report: Report) -> Finish:
    seeds = experiment_seeds(job.pretraining)
    assembly = Assembly(job, resources, seeds)
    data = resources.data(job.pretraining)
    pretrained, before = resources.pretrained(job.pretraining, data)
    assembly.lap("data")
    made_from = before.weights_sha256
    kept = resources.store.kept_weights(job, made_from, lambda message: report({"note": message}))
    with arithmetic(resources.precision, resources.device):
        report({"stage": "fine-tune"})
        if kept is not None:
            weights, origin = kept
            assembly.kept(origin)
            fine_tuned = resources.model(job.pretraining, data).eval().requires_grad_(False)
            fine_tuned.load_state_dict(weights.tensors)
            seeds["fine-tuning"] = origin.provenance.seeds["fine-tuning"]
        else:
            fine_tuned, parameters, progress, seeds["fine-tuning"], budget = fine_tune(
                job, pretrained, data, resources, report
            )
            assembly.trained(progress, budget)
            assembly.lap("fine_tune")
            origin = assembly.origin(key=job.weights_key, made_from=made_from, parameters=parameters)
        report({"stage": "score"})
        probabilities: Probabilities | None = {} if resources.store.keep_predictions else None
        metrics, predictions = score(fine_tuned, data, data.clean, probabilities)
        of_pretrained = resources.once(lambda: predictions_on(pretrained, data.rendered), "predictions", made_from)
        assembly.lap("score")
        report({"stage": "connect"})
        progress = Progress(report)
        paths = connect(job, pretrained, fine_tuned, data, (before.metrics, metrics), resources, made_from, progress)
        assembly.replayed(progress)
        assembly.lap("connect")

    scores = before.metrics.splits, metrics.splits

    def finish() -> CellRecord:
        sha256 = kept[0].sha256 if kept else None
        if sha256 is None and resources.keep_weights:
            sha256 = resources.store.save_weights(job, fine_tuned.state_dict(), origin)
        resources.store.save_predictions(job, kept_predictions(data, predictions, probabilities))
        return assembly.record(
            CellRecord,
            cell=job,
            pretraining_key=job.pretraining.key,
            pretrained_sha256=made_from,
            num_classes=data.num_classes,
            parameters=origin.parameters,
            metrics=metrics,
            worst_group=worst_group(data, metrics, predictions),
            paths=paths,
            invariance=invariances(scores[1]),
            effects=effects(scores, (of_pretrained, predictions)),
            budget=assembly.budget,
            weights_sha256=sha256,
        )

    return finish


def _trial(job: Trial, resources: Resources, report: Report) -> Finish:
    """Fine-tune, and score on validation images alone: what tunes a method never sees how it does on test images."""
    seeds = experiment_seeds(job.pretraining)
    assembly = Assembly(job, resources, seeds)
    data = resources.data(job.pretraining)
    pretrained, before = resources.pretrained(job.pretraining, data)
    assembly.lap("data")
    diverged, scores, parameters = None, {}, dict(job.method.parameters)
    with arithmetic(resources.precision, resources.device):
        report({"stage": "fine-tune"})
        try:
            fine_tuned, parameters, progress, seeds["fine-tuning"], budget = fine_tune(
                job, pretrained, data, resources, report
            )
            assembly.trained(progress, budget)
            assembly.lap("fine_tune")
            report({"stage": "score"})
            scores = data.trial_scores(evaluate_sets(fine_tuned, data.rendered_validation))
            assembly.lap("score")
        except (NonFiniteLossError, UnfitModelError) as error:
            if isinstance(error, UnfitModelError) and error.promise != FINITE:
                raise
            diverged = str(error)
    return lambda: assembly.record(
        TrialRecord,
        trial=job,
        pretraining_key=job.pretraining.key,
        pretrained_sha256=before.weights_sha256,
        num_classes=data.num_classes,
        parameters=parameters,
        validation=scores,
        diverged=diverged,
        budget=assembly.budget,
    )


def _pair(job: Pair, resources: Resources, report: Report) -> Finish:
    seeds = {**experiment_seeds(job.data), **path_seeds(job.connect, job.data.seed)}
    assembly = Assembly(job, resources, seeds)
    data = resources.data(job.data)
    (first, first_record), (second, second_record) = (
        resources.pretrained(end, data) for end in (job.first, job.second)
    )
    images = path_images(data, job.connect)
    assembly.lap("data")
    report({"stage": "connect"})
    progress = Progress(report)
    with arithmetic(resources.precision, resources.device):
        comparison = compare(first, second, images, job.connect, resources, job.data.seed, progress)
    assembly.trained(progress)
    assembly.lap("connect")
    return lambda: assembly.record(
        PairRecord,
        pair=job,
        weights_sha256=(first_record.weights_sha256, second_record.weights_sha256),
        num_classes=data.num_classes,
        comparison=comparison,
    )
