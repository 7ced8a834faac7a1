"""What a fine-tuning method promises, put to the test by the stage that runs it, on tiny data."""

from functools import partial
from typing import Any

import torch

from mmc_bench.errors import UserError
from mmc_bench.plugin.search import search_space
from mmc_bench.testing.checks import Fault, NotChecked, Property, one_line
from mmc_bench.testing.common import COMMON
from mmc_bench.testing.elsewhere import ask_elsewhere
from mmc_bench.testing.networks import check_outputs, first_difference
from mmc_bench.testing.runs import MethodSubject, digests
from mmc_bench.testing.tiny_data import SHAPES, Shape, other_hidden_data
from mmc_bench.training.returned import IN_FULL, IN_ORDER, PROMISES, UnfitModelError, hooks_of
from mmc_bench.training.task import UndeclaredDataError

#: Draws from a search space that are tried.
TRIALS = 32

# Runs the method in an interpreter of its own, which hashes strings otherwise, and tells the weights' digests.
REPETITION = """
import torch
from mmc_bench.plugin.registry import Registry
from mmc_bench.testing.checks import one_line
from mmc_bench.testing.runs import MethodSubject, digests

torch.set_num_threads(more["threads"])
registry = Registry([candidate])
run = MethodSubject(registry.get("method", more["method"]), registry).first
print(json.dumps({"error": one_line(run.error)} if run.error else {"weights": digests(run.trained)}))
"""


def asks_for_declared_data(subject: MethodSubject) -> str | None:
    """Nothing is asked for but what the spec's ``needs`` declare."""
    error = subject.first.error
    if isinstance(error, UndeclaredDataError):
        wanted = {"cued", "environments"} if "environments" in str(error) else {"cued"}
        raise Fault(f"{error} ({subject.place})", f"write MethodSpec(…, needs={sorted(wanted)})")
    needs = sorted({"clean", *subject.offer.spec.needs})
    return f"needs {', '.join(needs)}"


def can_be_tuned(subject: MethodSubject) -> str:
    """What `mmc-bench run --tune` may draw from its search space are values that its Config allows."""
    offer = subject.offer
    space = search_space(subject.schema, offer.spec.defaults)
    for trial in range(TRIALS):
        drawn = space.draw(trial)
        try:
            offer.configure(drawn)
        except UserError as error:
            raise Fault(
                f"the search space has values that are not allowed: {error}", "narrow the space in its Config"
            ) from None
    words = "; ".join(f"{name}: {space}" for name, space in space.described().items())
    if not space.spaces:
        return "nothing is searched: it declares no space, and has no lr and no epochs"
    return words if space.spaces.keys() - space.standard else f"declares no search space; {words}"


def uses_its_data_alone(subject: MethodSubject) -> None:
    """Other images and labels in place of those that it has no right to, and other test images, change no weight."""
    subject.require_a_model()
    if not (name := _difference(subject, data=other_hidden_data(subject.shape, subject.offer.spec.needs))):
        return
    if _difference(subject):
        raise NotChecked("two runs on the same data differ already")
    raise Fault(
        f"weight {name!r} depends on images outside of the method's sets ({subject.place})",
        "take images from task.clean, task.validation and the cued sets that are declared, by their batches: their "
        "storage holds all training images, and test images are for the score alone",
    )


def fine_tunes(shape: Shape, subject: MethodSubject) -> None:
    """It runs to its end on data of this shape, and its model has outputs of the right shape."""
    run = subject.run_on(shape)
    if isinstance(run.error, UndeclaredDataError):
        raise NotChecked("it asks for data that it does not declare")
    if run.refusal is not None:
        if any(subject.run_on(other).refusal is None for other in SHAPES):
            raise NotChecked(f"it refuses {shape.name}: {run.refusal}")
        raise Fault(run.refusal, f"it refuses every shape, of which {shape.name} is one: let it work on one at least")
    if run.error is not None and not (
        shape is subject.shape and isinstance(run.error, UnfitModelError)
    ):  # judged below
        raise Fault(
            one_line(run.error) if not isinstance(run.error, UserError) else str(run.error),
            f"see {subject.place}: `mmc-bench check` hands over {shape.name}, in sets of a few images of each class",
        )
    if shape is not subject.shape:
        check_outputs(run.trained, run.images(8), shape.num_classes)


def keeps(promise: str, subject: MethodSubject) -> None:
    """What is returned passes the stage's check of this promise: `run` makes it, too."""
    run = subject.first
    if not run.returned:
        raise NotChecked("it did not run to its end")
    if isinstance(run.error, UnfitModelError):
        if run.error.promise == promise:
            raise Fault(f"{run.error.problem} ({subject.place})", run.error.remedy)
        if PROMISES.index(run.error.promise) < PROMISES.index(promise):
            raise NotChecked("it returned no model that could be judged: see what failed")


def repeats_itself(subject: MethodSubject) -> None:
    """On a CPU the same seed gives the same weights to the bit, whatever state the global generators were in before."""
    subject.require_a_model()
    if not (name := _difference(subject, salt=1)):
        return
    if not _difference(subject):
        raise Fault(
            f"weight {name!r} depends on the state of Python's or NumPy's global generator, or on a draw in __init__ "
            f"({subject.place})",
            "draw within fine_tune from task.generator or torch's global generator, and give other libraries a seed "
            "drawn from them",
        )
    raise Fault(
        f"two runs with one seed differ in weight {name!r} ({subject.place})",
        "look for a generator without a seed, the clock, the order of a set, or something kept from the last run",
    )


def _difference(subject: MethodSubject, **otherwise: Any) -> str | None:
    """Run once more, under other circumstances; return the name of the first weight unlike the first run's."""
    again = subject.run(subject.shape, **otherwise)
    if again.error is not None:
        raise Fault(f"a second run failed: {one_line(again.error)}", "keep nothing from one run for the next")
    return first_difference(subject.model.state_dict().items(), again.trained.state_dict().items())


def repeats_itself_elsewhere(subject: MethodSubject) -> None:
    """So it does in another process, where sets of strings come in another order."""
    subject.require_a_model()
    offer = subject.offer
    more = {"method": f"{offer.plugin.distribution}:{offer.spec.name}", "threads": torch.get_num_threads()}
    answer = ask_elsewhere(offer.plugin, REPETITION, more)
    if error := answer.get("error"):
        raise Fault(f"in another process it fails: {error}", "keep nothing in this process that fine_tune needs")
    here = digests(subject.model)
    if changed := [name for name in here if here[name] != answer["weights"].get(name)]:
        if _difference(subject):
            raise NotChecked("two runs in one process differ already")
        raise Fault(
            f"weight {changed[0]!r} is another in another process ({subject.place})",
            "sort what comes out of a set, and use hashlib, not hash(): both differ between processes",
        )


def follows_the_seed(subject: MethodSubject) -> str | None:
    """It gives torch's global generator no seed of its own, which would be one for all experiments."""
    subject.require_a_model()
    other = subject.run(subject.shape, seed=1)
    if other.error is not None:
        raise Fault(f"with another seed it fails: {one_line(other.error)}", "look at what it draws at random")
    if constant := sorted(set(subject.first.reseeded) & set(other.reseeded)):
        raise Fault(
            f"fine_tune seeds torch with {constant[0]}, whatever the experiment's seed ({subject.place})",
            "leave out torch.manual_seed: the benchmark seeds torch before fine_tune, for each experiment otherwise",
        )
    same = not first_difference(subject.model.state_dict().items(), other.trained.state_dict().items())
    return "does not depend on the seed" if same else None


def leaves_pretrained_model(subject: MethodSubject) -> None:
    """θ_C has the weights and statistics that it had, and is frozen in eval mode still."""
    task = subject.first.task
    if task is None:
        raise NotChecked("it did not run")
    frozen = task.pretrained
    remedy = "change task.model, or a copy.deepcopy of task.pretrained: θ_C is what every path and barrier starts from"
    if changed := first_difference(subject.network().state_dict().items(), frozen.state_dict().items()):
        raise Fault(f"fine_tune changed {changed!r} of task.pretrained ({subject.place})", remedy)
    if any(module.training for module in frozen.modules()):
        raise Fault(f"fine_tune left task.pretrained in training mode ({subject.place})", remedy)
    if any(weight.requires_grad for weight in frozen.parameters()):
        raise Fault(f"fine_tune made task.pretrained trainable ({subject.place})", remedy)
    if hooks := next(hooks_of(frozen), None):
        raise Fault(f"fine_tune left {hooks} on task.pretrained ({subject.place})", "remove hooks: handle.remove()")


def leaves_data(subject: MethodSubject) -> None:
    """Images, labels and cues are what they were: other methods are given the same tensors."""
    if spoilt := subject.first.spoilt:
        raise Fault(f"fine_tune changed the {spoilt} in place ({subject.place})", "work on a clone()")


def leaves_process(subject: MethodSubject) -> None:
    """What Python, torch and NumPy keep for the whole process is what it was: other methods compute with it."""
    if subject.first.changed:
        raise Fault(
            f"{subject.first.changed} ({subject.place})",
            "use what ends by itself: torch.autocast, torch.no_grad, numpy.errstate and others as `with` blocks; pass "
            "dtype= and device= to what makes tensors, and copy what is to be patched",
        )


def leaves_working_order(subject: MethodSubject) -> None:
    """The model has no hooks left on it, is of the type it had, and runs in both modes."""
    keeps(IN_ORDER, subject)
    check_outputs(subject.model, subject.first.images(8), subject.shape.num_classes)


def runs_in(precision: str, device_type: str, subject: MethodSubject) -> None:
    """It runs on this device in this arithmetic, and the weights stay there in float32."""
    if device_type == "cuda" and not torch.cuda.is_available():
        raise NotChecked("there is no GPU here")
    subject.require_a_model()
    device = torch.device(device_type)
    run = subject.run(subject.shape, device=device, precision=precision)
    if run.error is not None:
        raise Fault(
            one_line(run.error),
            "create tensors on task.device; under autocast, compute losses with mmc_bench.training.cross_entropy and "
            "other sums within full_precision(task.device)",
        )


PROPERTIES = (
    *COMMON,
    Property("can be tuned", can_be_tuned),
    Property("asks only for data that it declares", asks_for_declared_data),
    Property("depends on no image outside its sets", uses_its_data_alone),
    *(Property(f"fine-tunes {shape.name}", partial(fine_tunes, shape)) for shape in SHAPES),
    *(Property(promise, partial(keeps, promise)) for promise in PROMISES[:3]),
    Property("returns the same weights for the same seed", repeats_itself),
    Property("returns the same weights in another process", repeats_itself_elsewhere),
    Property("draws by the experiment's seed", follows_the_seed),
    Property("leaves the pretrained model as it was", leaves_pretrained_model),
    Property("leaves the data as they were", leaves_data),
    Property("leaves the process as it was", leaves_process),
    Property(IN_ORDER, leaves_working_order),
    Property(IN_FULL, partial(keeps, IN_FULL)),
    Property("runs in bfloat16 on the CPU", partial(runs_in, "bf16", "cpu")),
    Property("runs on a GPU", partial(runs_in, "fp32", "cuda")),
    Property("runs in bfloat16 on a GPU", partial(runs_in, "bf16", "cuda")),
)
