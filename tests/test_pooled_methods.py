"""Group DRO, JTT and LISA, which train on clean and cued images together: against loops in float64."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from mmc_bench_plugins.groupdro.method import groups_of, reweighted
from mmc_bench_plugins.jtt.method import objective_weights
from mmc_bench_plugins.lisa.method import Partners, domains_of, mixed_loss
from torch.distributions import Beta
from torch.nn import functional as F

from mmc_bench.plugin.registry import Registry
from mmc_bench.training import Progress, Task, group_losses

METHODS = ["groupdro", "jtt", "lisa"]
CLEAN, CUED, CLASSES = 11, 14, 3
ENVIRONMENTS = {
    "some without a cue": [1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1],
    "all cued": [1] * CUED,
    "none cued": [0] * CUED,
}


@pytest.fixture
def make_task(tiny_net, image_set):
    """Return a maker of tasks on tiny data in float64; the generator starts at seed 7, as does torch's."""

    def make(environments="some without a cue", seed=7, labels=None):
        pretrained = tiny_net(1).eval().requires_grad_(False)
        images = image_set(CLEAN + CUED, 1, labels=labels)
        cues = torch.tensor([-1] * CLEAN + [e - 1 for e in ENVIRONMENTS[environments]])  # code 0 is a cue
        images = replace(images, cues=cues)
        torch.manual_seed(seed)
        return Task(
            model=copy.deepcopy(pretrained).train().requires_grad_(True),
            pretrained=pretrained,
            clean=images.first(CLEAN),
            validation=image_set(5, 2),
            num_classes=CLASSES,
            device=torch.device("cpu"),
            generator=torch.Generator().manual_seed(seed),
            progress=Progress(),
            needs=frozenset({"cued", "environments"}),
            _cued=images.subset(slice(CLEAN, None)),
            _environments=torch.tensor(ENVIRONMENTS[environments]),
        )

    return make


def make_method(name, **parameters):
    offer = Registry.discover().get("method", name)
    return offer.make(offer.configure(parameters))


def pool_by_hand(task, environments):
    """Return images, labels and groups (environment, label) of the clean images, then of the cued ones, as lists."""
    labels = task.clean.labels.tolist() + task.cued.labels.tolist()
    groups = list(zip([0] * CLEAN + ENVIRONMENTS[environments], labels))
    return task.clean.storage, labels, groups


def chances_by_hand(groups):
    cued = groups[CLEAN:]
    return torch.tensor([1 / cued.count(group) for group in cued], dtype=torch.float64)


def paired_by_hand(chances, epochs, batch_size, generator):
    """Yield the rows of each step: a batch of the clean set in a new order each epoch, and as many cued ones."""
    for _ in range(epochs):
        order = torch.randperm(CLEAN, generator=generator).tolist()
        for start in range(0, CLEAN, batch_size):
            clean = order[start : start + batch_size]
            cued = torch.multinomial(chances, len(clean), True, generator=generator).tolist()
            yield clean + [CLEAN + row for row in cued]


class Descent:
    """SGD with momentum .9 and weight decay 1e-4 on a cosine, each step's learning rate written out."""

    def __init__(self, model, lr, steps):
        self.model, self.lr, self.steps, self.done = model, lr, steps, 0
        self.velocities = [torch.zeros_like(p) for p in model.parameters()]

    def minimise(self, loss):
        gradients = torch.autograd.grad(loss, list(self.model.parameters()))
        lr = self.lr * (1 + math.cos(math.pi * self.done / self.steps)) / 2
        with torch.no_grad():
            for p, v, g in zip(self.model.parameters(), self.velocities, gradients, strict=True):
                v.mul_(0.9).add_(g + 1e-4 * p)
                p.sub_(lr * v)
        self.done += 1


def assert_same_state(model, expected, tolerance=1e-9):
    for (name, value), wanted in zip(model.state_dict().items(), expected.state_dict().values(), strict=True):
        assert torch.allclose(value, wanted, rtol=tolerance, atol=tolerance), name


# --- group DRO


def test_a_group_is_a_label_in_an_environment_and_clean_images_are_of_environment_0():
    labels, environments = torch.tensor([2, 0, 1, 2, 2]), torch.tensor([0, 0, 1, 0, 1])
    assert groups_of(labels, environments, 3).tolist() == [2, 0, 4, 2, 5]


def test_group_losses_are_means_over_each_groups_images_and_0_without_any():
    generator = torch.Generator().manual_seed(0)
    losses = torch.rand(9, dtype=torch.float64, generator=generator).requires_grad_()
    groups = [4, 0, 0, 4, 2, 0, 4, 4, 2]
    means = group_losses(losses, torch.tensor(groups), 6)
    for group in range(6):
        own = [loss for loss, g in zip(losses.tolist(), groups) if g == group]
        assert means[group].item() == pytest.approx(sum(own) / len(own) if own else 0.0, rel=1e-12)
    (gradient,) = torch.autograd.grad(means[2], losses)
    assert gradient.tolist() == [0, 0, 0, 0, 0.5, 0, 0, 0, 0.5]


def test_group_losses_are_not_rounded_under_autocast():
    losses, groups = torch.full((300,), 1.001), torch.zeros(300, dtype=torch.long)
    with torch.autocast("cpu", torch.bfloat16):
        assert group_losses(losses, groups, 2)[0].item() == pytest.approx(1.001, rel=1e-6)


def test_weights_grow_exponentially_with_the_loss_and_sum_to_1():
    q, losses = [0.5, 0.3, 0.2, 0.0], [0.1, 2.0, 0.0, 9.0]
    grown = [weight * math.exp(0.7 * loss) for weight, loss in zip(q, losses)]
    expected = [weight / sum(grown) for weight in grown]
    result = reweighted(*(torch.tensor(v, dtype=torch.float64) for v in (q, losses)), 0.7)
    assert result.tolist() == pytest.approx(expected, rel=1e-12)
    assert result[3] == 0


def group_dro_by_hand(task, environments, epochs, batch_size, lr, group_step_size, adjustment):
    images, labels, groups = pool_by_hand(task, environments)
    generator, model = torch.Generator().manual_seed(7), copy.deepcopy(task.model)
    present = sorted(set(groups))
    q = {group: 1 / len(present) for group in present}
    margin = {group: adjustment / math.sqrt(groups.count(group)) for group in present}
    descent = Descent(model, lr, epochs * math.ceil(CLEAN / batch_size))
    for rows in paired_by_hand(chances_by_hand(groups), epochs, batch_size, generator):
        log_p = model(images[rows]).log_softmax(1)
        losses = {group: [] for group in present}
        for place, row in enumerate(rows):
            losses[groups[row]].append(-log_p[place, labels[row]])
        means = {g: (sum(own) / len(own) if own else torch.zeros(())) + margin[g] for g, own in losses.items()}
        q = {g: q[g] * math.exp(group_step_size * means[g].item()) for g in present}
        q = {g: weight / sum(q.values()) for g, weight in q.items()}
        descent.minimise(sum(q[g] * means[g] for g in present))
    return model


@pytest.mark.parametrize("environments", ENVIRONMENTS)
@pytest.mark.parametrize(("group_step_size", "adjustment"), [(0.01, 0.0), (2.0, 0.0), (2.0, 3.0)])
def test_group_dro_equals_a_hand_written_loop(make_task, environments, group_step_size, adjustment):
    settings = {"epochs": 3, "batch_size": 4, "lr": 0.02}
    settings |= {"group_step_size": group_step_size, "adjustment": adjustment}
    expected = group_dro_by_hand(make_task(environments), environments, **settings)
    task = make_task(environments)
    # C/√n is taken in float32.
    assert_same_state(make_method("groupdro", **settings).fine_tune(task), expected, 1e-6 if adjustment else 1e-9)
    assert (task.model.stem.weight - task.pretrained.stem.weight).abs().max() > 1e-3


# --- JTT


def test_an_image_counts_once_in_the_objective_and_a_wrong_one_as_often_as_asked():
    wrong = torch.tensor([False, True, False, False, True])
    assert objective_weights(wrong, 7).tolist() == pytest.approx([1 / 17, 7 / 17, 1 / 17, 1 / 17, 7 / 17])
    assert objective_weights(wrong, 1).tolist() == pytest.approx([0.2] * 5)


def jtt_by_hand(task, epochs, batch_size, lr, upsampling):
    images, labels, _ = pool_by_hand(task, "all cued")
    generator, model = torch.Generator().manual_seed(7), copy.deepcopy(task.model)
    frozen = copy.deepcopy(task.pretrained).eval()
    wrong = [row for row in range(len(labels)) if frozen(images[row : row + 1])[0].argmax() != labels[row]]
    times = [upsampling if row in wrong else 1 for row in range(len(labels))]
    descent = Descent(model, lr, epochs * math.ceil(CLEAN / batch_size))
    for rows in paired_by_hand(torch.ones(CUED), epochs, batch_size, generator):
        losses = F.cross_entropy(model(images[rows]), torch.tensor([labels[row] for row in rows]), reduction="none")
        total = 0
        for row, loss in zip(rows, losses):  # an image of a batch stands for |set| / |batch| of its set
            total += times[row] * loss * (CLEAN if row < CLEAN else CUED) / (len(rows) / 2)
        descent.minimise(total / sum(times))
    return model, wrong


@pytest.mark.parametrize("upsampling", [1, 5])
def test_jtt_equals_a_hand_written_loop(make_task, upsampling):
    settings = {"epochs": 5, "batch_size": 4, "lr": 0.02, "upsampling": upsampling}
    expected, wrong = jtt_by_hand(make_task(), **settings)
    assert 0 < len(wrong) < CLEAN + CUED
    assert min(wrong) < CLEAN <= max(wrong)  # the error set has images of both sets
    assert_same_state(make_method("jtt", **settings).fine_tune(make_task()), expected, 1e-6)  # weights are float32


@pytest.mark.slow
def test_where_the_pretrained_model_errs_nowhere_upsampling_changes_nothing(make_task):
    task = make_task()
    labels = task.pretrained(task.clean.storage).argmax(1).tolist()
    runs = []
    for upsampling in (1, 50):
        task = make_task(labels=labels)
        task.clean.storage.copy_(make_task().clean.storage)
        runs.append(make_method("jtt", epochs=2, batch_size=4, upsampling=upsampling).fine_tune(task))
    assert_same_state(runs[0], runs[1], tolerance=0)


# --- LISA


#: The code of the cue that each image carries, clean images first: -1 for none.
CODES = {
    "no cue on some": [-1] * CLEAN + [0, 1, -1, 2, 0, 1, -1, 2, 0, 1, -1, 2, 0, 1],
    "random cues on all": [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 2, 0, 0, 1, 1, 2, 0, 1, 2, 0, 1, 2, 0],
    "one cue on all": [1] * (CLEAN + CUED),
    "codes with gaps": [7, 40, 7, 40, 7, 40, 7, 40, 7, 40, 7] + [40, 7] * (CUED // 2),
}
LABELS = {
    "three": [0, 1, 2, 1, 0, 2, 2, 1, 0, 0, 1, 2, 0, 1, 2, 1, 0, 2, 2, 1, 0, 0, 1, 2, 0],
    "apart": [2] * CLEAN + [0, 2] * (CUED // 2),
    "one": [0] * (CLEAN + CUED),
}


def domains_by_hand(labels, attributes, environments):
    pairs = {*zip(attributes, labels)}
    several = {a for a in attributes if sum(b == a for b, _ in pairs) > 1}
    return [a if a in several else ("environment", e) for a, e in zip(attributes, environments)]


def allowed_partners(labels, attributes, environments, row, within_label):
    """Return who may be mixed with an image: of its label with another attribute, or of its domain with another."""
    if within_label:
        return [other for other, a in enumerate(attributes) if labels[other] == labels[row] and a != attributes[row]]
    domains = domains_by_hand(labels, attributes, environments)
    return [other for other, d in enumerate(domains) if d == domains[row] and labels[other] != labels[row]]


def a_pool(labels="three", codes="random cues on all"):
    """Return labels, attributes and environments of a pool of images, as lists."""
    labels, attributes = LABELS[labels], CODES[codes]
    return labels, attributes, [int(a == y) for a, y in zip(attributes, labels)]


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("within_label", [True, False])
@pytest.mark.parametrize("labels", LABELS)
def test_partners_are_drawn_evenly_from_those_allowed_else_the_image_itself(codes, within_label, labels):
    pool, draws = a_pool(labels, codes), 400
    partners, generator = Partners(*map(torch.tensor, pool)), torch.Generator().manual_seed(7)
    rows = torch.arange(CLEAN + CUED).repeat(draws)
    drawn = partners.draw(rows, torch.tensor(within_label), generator).view(draws, -1)
    for row in range(CLEAN + CUED):
        allowed = allowed_partners(*pool, row, within_label) or [row]
        seen = drawn[:, row].tolist()
        share = 1 / len(allowed)
        assert set(seen) == set(allowed)
        slack = 5.5 * math.sqrt(draws * share * (1 - share))
        assert all(abs(seen.count(partner) - draws * share) <= slack for partner in allowed)


def test_rows_of_one_draw_may_differ_in_what_they_want():
    pool, rows = a_pool(), torch.arange(CLEAN + CUED)
    wants = rows % 2 == 0
    drawn = Partners(*map(torch.tensor, pool)).draw(rows, wants, torch.Generator().manual_seed(7)).tolist()
    for row, partner in enumerate(drawn):
        assert partner in (allowed_partners(*pool, row, bool(wants[row])) or [row])


def test_a_draw_that_is_rounded_up_stays_among_those_allowed():
    pool, rows = a_pool(), torch.arange(CLEAN + CUED)
    partners, last = Partners(*map(torch.tensor, pool)), torch.ones(CLEAN + CUED, dtype=torch.float64)
    for kin, within_label in zip(partners.within, (True, False), strict=True):
        for row, partner in enumerate(kin.at(rows, last).tolist()):
            assert partner in (allowed_partners(*pool, row, within_label) or [row])


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("labels", LABELS)
def test_a_domain_is_an_attribute_or_the_environment_where_one_label_has_all_of_it(codes, labels):
    pool = a_pool(labels, codes)
    found, expected = domains_of(*map(torch.tensor, pool)).tolist(), domains_by_hand(*pool)
    assert [[a == b for b in found] for a in found] == [[a == b for b in expected] for a in expected]


def test_a_landbird_on_water_is_mixed_with_birds_on_water_and_with_landbirds_on_land():
    labels, attributes = torch.arange(40) // 2 % 2, torch.arange(40) % 2  # (landbird, waterbird), (land, water)
    partners = Partners(labels, attributes, (labels == attributes).long())
    rows = ((labels == 0) & (attributes == 1)).nonzero()[:, 0]
    for within_label, wanted in ((True, (0, 0)), (False, (1, 1))):
        drawn = partners.draw(rows, torch.tensor(within_label), torch.Generator().manual_seed(0))
        assert {*zip(labels[drawn].tolist(), attributes[drawn].tolist())} == {wanted}


def test_attributes_that_one_label_alone_has_are_still_mixed_within_it():
    labels = torch.arange(40) % 2
    attributes = 2 * labels + torch.arange(40) // 2 % 2  # label 0 has 0 and 1, label 1 has 2 and 3
    partners, rows = Partners(labels, attributes, torch.ones_like(labels)), torch.arange(40)
    drawn = partners.draw(rows, torch.tensor(True), torch.Generator().manual_seed(0))
    assert torch.equal(labels[drawn], labels) and (attributes[drawn] != attributes).all()


def mixed_loss_by_hand(model, images, labels, shares):
    """Return the cross-entropy with mixed one-hot labels of images mixed one by one."""
    half = len(shares)
    one_hot = [[float(label == k) for k in range(CLASSES)] for label in labels]
    mixed = torch.stack([s * images[i] + (1 - s) * images[half + i] for i, s in enumerate(shares)])
    log_p, total = model(mixed).log_softmax(1), 0.0
    for i, s in enumerate(shares):
        for k in range(CLASSES):
            total = total - (s * one_hot[i][k] + (1 - s) * one_hot[half + i][k]) * log_p[i, k]
    return total / half


@pytest.mark.parametrize("kind", ["images", "vectors"])
def test_the_mixed_loss_is_that_of_mixed_images_and_mixed_labels(tiny_net, image_set, kind):
    images, shares = image_set(10), torch.tensor([0.1, 0.5, 0.9, 0.3, 1.0], dtype=torch.float64)
    torch.manual_seed(0)
    model = tiny_net().train() if kind == "images" else torch.nn.Linear(72, 3, dtype=torch.float64)
    x = images.storage if kind == "images" else images.storage.flatten(1)
    loss = mixed_loss(model, x, images.labels, shares)
    expected = mixed_loss_by_hand(model, x, images.labels.tolist(), shares.tolist())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)


def lisa_by_hand(task, environments, epochs, batch_size, lr, intra_label, mixing):
    images, labels, groups = pool_by_hand(task, environments)
    generator, model = torch.Generator().manual_seed(7), copy.deepcopy(task.model)
    attributes = [label if cued else -1 for cued, label in groups]  # an own cue is that of the label
    partners = Partners(*map(torch.tensor, (labels, attributes, [cued for cued, _ in groups])))
    steps = epochs * math.ceil(CLEAN / batch_size)
    descent = Descent(model, lr, steps)
    strategies = (torch.rand(steps, generator=generator) < intra_label).tolist()
    for step, rows in enumerate(paired_by_hand(chances_by_hand(groups), epochs, batch_size, generator)):
        others = partners.draw(torch.tensor(rows), torch.tensor(strategies[step]), generator)
        both = rows + others.tolist()
        shares = Beta(mixing, mixing).sample((len(rows),)).tolist()
        descent.minimise(mixed_loss_by_hand(model, images[both], [labels[row] for row in both], shares))
    return model


@pytest.mark.parametrize("environments", ENVIRONMENTS)
@pytest.mark.parametrize("intra_label", [0.0, 0.5, 1.0])
def test_lisa_equals_a_hand_written_loop(make_task, environments, intra_label):
    settings = {"epochs": 3, "batch_size": 4, "lr": 0.02, "intra_label": intra_label, "mixing": 2.0}
    expected = lisa_by_hand(make_task(environments), environments, **settings)
    torch.manual_seed(7)
    # λ is drawn in float32.
    assert_same_state(make_method("lisa", **settings).fine_tune(make_task(environments)), expected, tolerance=1e-6)


# --- what they have in common


@pytest.mark.parametrize("name", METHODS)
def test_each_step_has_a_batch_of_a_pass_over_the_clean_set_and_as_many_cued_images(make_task, name):
    task, seen = make_task(), []
    task.model.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    make_method(name, epochs=2, batch_size=4).fine_tune(task)
    assert seen == [8, 8, 6] * 2


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_the_same_seed_gives_the_same_weights_to_the_bit(make_task, name):
    runs = [make_method(name, epochs=2, batch_size=4).fine_tune(make_task(seed=seed)) for seed in (7, 7, 8)]
    first, again, other = ([value.clone() for value in run.state_dict().values()] for run in runs)
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not all(torch.equal(a, b) for a, b in zip(first, other))


def test_the_defaults_are_those_of_the_authors():
    shared = {"lr": 0.01, "epochs": 20, "batch_size": 256}
    assert dict(make_method("groupdro").config) == {**shared, "group_step_size": 0.01, "adjustment": 0.0}
    assert dict(make_method("jtt").config) == {**shared, "upsampling": 50}
    assert dict(make_method("lisa").config) == {**shared, "intra_label": 0.5, "mixing": 2.0}


@pytest.mark.parametrize("name", METHODS)
def test_they_declare_what_they_use_and_describe_their_parameters(name):
    needs = {"cued"} if name == "jtt" else {"cued", "environments"}
    assert Registry.discover().get("method", name).spec.needs == needs
    assert all(field.description for field in type(make_method(name)).Config.model_fields.values())
