"""A plugin for tests: a dataset whose images come in groups, without counterfactuals."""

from mmc_bench import DatasetSpec, hookimpl


@hookimpl
def register_datasets(register):
    register(DatasetSpec(name="grouped-tiny", target=":TinyGroups", splits="groups", summary="stripes on some ground"))


class TinyGroups:
    """Three classes of 8x8 stripes; the attribute, one of three, is the brightness of the ground."""

    num_classes = 3

    def load(self, sources):
        import torch

        from mmc_bench.data.contract import LabelledImages

        generator = torch.Generator().manual_seed(0)

        def part(n, agreement):
            labels = torch.arange(n) % 3
            other = torch.randint(3, (n,), generator=generator)
            attributes = torch.where(torch.rand(n, generator=generator) < agreement, labels, other)
            images = torch.randint(0, 60, (n, 3, 8, 8), generator=generator, dtype=torch.uint8)
            images += (40 * attributes)[:, None, None, None].to(torch.uint8)
            images[torch.arange(n), :, 2 + 2 * labels] += 60
            return LabelledImages(images, labels, attributes)

        self.train, self.test = part(150, 0.7), part(80, 0.1)
        self.validation = torch.arange(150) % 3 == torch.arange(150) // 3 % 3
