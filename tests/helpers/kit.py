"""Plugins with a planted fault each, and asking the conformance kit about one property of theirs."""

import textwrap

from helpers.plugins import registry_of, write_source
from mmc_bench.testing.conformance import properties_of, subject_of

METHOD = """
from pydantic import Field
from mmc_bench import BaseConfig, MethodSpec, hookimpl

@hookimpl
def register_methods(register):
    register(MethodSpec(name="planted", target=":Planted", summary="a fault", needs={needs}))

class Planted:
    class Config(BaseConfig):
        lr: float = Field(0.1, gt=0, description="learning rate")

    def fine_tune(self, task):
        import copy, random
        import numpy, torch
        from torch import nn
        model, drawn = task.model, torch.randn(1, generator=task.generator, device=task.device)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(drawn)
{body}
        return model
"""

DATASET = '''
from mmc_bench import DatasetSpec, hookimpl

@hookimpl
def register_datasets(register):
    register(DatasetSpec(name="planted", target=":Planted", summary="a fault"))

class Planted:
    """Grey noise; a white pixel in the upper row tells the label."""

    num_classes = 4
    clean_images = validation_images = 8

    def load(self, sources):
        import torch
        from mmc_bench.data.contract import LabelledImages
        generator = torch.Generator().manual_seed(0)
        def part(n):
            images = torch.randint(100, (n, 1, 8, 8), generator=generator, dtype=torch.uint8)
            labels = torch.arange(n) % 4
            return LabelledImages(images, labels, self.cues_of(labels))
        self.train, self.test = part(48), part(48)

    def cues_of(self, labels):
        return labels.clone()

    def random_cue(self, n, generator):
        import torch
        return torch.randint(4, (n,), generator=generator)

    def render(self, images, cue):
        import torch
        columns = torch.arange(8, device=images.device) == cue[:, None]
        images = images.clone()
        images[:, :, 0] = torch.where(columns[:, None], 1.0, images[:, :, 0])
        return images

{body}
'''

BACKBONE = """
from mmc_bench import BackboneSpec, hookimpl

@hookimpl
def register_backbones(register):
    register(BackboneSpec(name="planted", target=":planted", summary="a fault"))

def planted(num_classes, input_shape):
    import torch
    from torch import nn
    from mmc_bench.testing.tiny_data import TinyNet

    class Planted(TinyNet):
        pass
{body}
    return Planted(num_classes, input_shape)
"""

#: What starts an interpreter of its own, some five seconds each.
IN_ANOTHER_PROCESS = ("in another process", "without a heavy import")


def in_this_process(kind):
    """Return the names of the properties that are checked without starting another interpreter."""
    return [prop.name for prop in properties_of(kind) if not prop.name.endswith(IN_ANOTHER_PROCESS)]


def source_of(kind, body="", needs=frozenset()):
    """Return the source of a plugin; `body` goes into the method, the dataset's class, or the network's."""
    template = {"method": METHOD, "dataset": DATASET, "backbone": BACKBONE}[kind]
    indent = 4 if kind == "dataset" else 8
    body = textwrap.indent(textwrap.dedent(body).strip(), " " * indent)
    return template.replace("{body}", body).replace("{needs}", repr(set(needs)))


def checks(folder, kind, source, *names):
    """Return what is found of a plugin's properties, by name: of all, or of these."""
    registry = registry_of(write_source(folder, "planted.py", source))
    assert registry.failures == []
    subject = subject_of(registry.get(kind, "planted"), registry)
    known = {prop.name: prop for prop in properties_of(kind)}
    return {name: known[name].check(subject) for name in names or known}
