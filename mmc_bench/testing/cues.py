"""What is asked of cue codes: that they tell labels apart, and that random ones are uniform."""

import torch
from scipy import stats

from mmc_bench.data.contract import has_cue
from mmc_bench.testing.checks import Fault

#: Below this a fit to chance is no chance; with a fixed seed the verdict on a dataset never changes.
SIGNIFICANCE = 1e-6

#: More cells than this are joined for the chi-square test.
CELLS = 40

#: Of continuous codes, the share whose nearest neighbour must be of the same label.
NEIGHBOURS = 0.99

COMPARED = 1000

#: Of continuous draws, the share that may have one value by chance of rounding.
LARGEST_PILE = 0.01

#: By how much a float32 may lie outside its bounds.
ROUNDING = 1e-5


def tells_labels(codes: torch.Tensor, labels: torch.Tensor) -> tuple[int, int] | None:
    """Return two labels that codes confuse, or None where a code tells its label.

    Codes that come again must come with one label alone. Continuous ones never do; there the nearest other code
    must be of the same label, but for one in a hundred.

    Parameters
    ----------
    codes
        Of shape (n,) or (n, d).
    labels
        Of shape (n,).
    """
    rows = codes.reshape(len(codes), -1)
    _, which = torch.unique(rows, dim=0, return_inverse=True)
    label_of: dict[int, int] = {}
    for code, label in zip(which.tolist(), labels.tolist(), strict=True):
        if label_of.setdefault(code, label) != label:
            return label_of[code], label
    if not codes.is_floating_point() or len(label_of) < len(codes) / 2:
        return None
    rows, labels = rows[:COMPARED].double(), labels[:COMPARED]
    gaps = torch.cdist(rows, rows).fill_diagonal_(float("inf"))
    neighbours = labels[gaps.argmin(1)]
    wrong = neighbours != labels
    if wrong.double().mean() <= 1 - NEIGHBOURS:
        return None
    first = int(wrong.nonzero()[0])
    return int(labels[first]), int(neighbours[first])


def follows_from_label(codes: torch.Tensor, labels: torch.Tensor) -> bool:
    """Tell whether all images of a label have one code; codes have shape (n,) or (n, d), labels (n,)."""
    pairs = torch.cat([labels[:, None].double(), codes.reshape(len(codes), -1).double()], dim=1)
    return len(pairs.unique(dim=0)) == len(labels.unique())


def check_not_negative(codes: torch.Tensor, place: str) -> None:
    """Raise a `Fault` where a random code is negative, which means no cue; of several numbers the first tells."""
    absent = codes[~has_cue(codes)]
    if len(absent):
        raise Fault(
            f"{len(absent)} of {len(codes)} random cues are negative, such as {float(absent.min()):g} ({place})",
            "draw codes of cues alone: a negative code means no cue, and the RC split has a cue on every image",
        )


def check_known(codes: torch.Tensor, own: torch.Tensor, place: str) -> None:
    """Raise a `Fault` where a random code is no label's; numbers of it that are continuous are left out.

    Parameters
    ----------
    codes
        Random codes, of shape (n,) or (n, d).
    own
        Codes of images of every label.
    """
    drawn, own = (each.reshape(len(each), -1) for each in (codes, own))
    discrete = [index for index, column in enumerate(drawn.T) if not _is_continuous(column)]
    if not discrete:
        return
    known = {tuple(row) for row in own[:, discrete].unique(dim=0).tolist()}
    strange = [row for row in drawn[:, discrete].unique(dim=0).tolist() if tuple(row) not in known]
    if strange:
        code = strange[0] if len(strange[0]) > 1 else strange[0][0]
        raise Fault(
            f"random_cue draws {code}, which is the cue of no label ({place})",
            "draw a label uniformly, as torch.randint(K, (n,), generator=generator) does, and return the label's code",
        )


def check_uniform(codes: torch.Tensor, own: torch.Tensor, place: str) -> str | None:
    """Compare random codes with the labels' own, a column at a time.

    A column of a few values must have each of them equally often (chi-square). A continuous one must have the
    distribution of the labels' own (Kolmogorov-Smirnov); where the labels' own are a few values of it, the random
    ones must reach as far, at most a step between two of these values further up, and be uniform on that. Where
    they pile up on single values, as channels of a colour do, whether they are uniform is not checked.

    Returns
    -------
    str
        What was found of each column, and what was not checked.

    Parameters
    ----------
    codes
        Random codes, of shape (n,) or (n, d).
    own
        The codes of the test images.

    Raises
    ------
    Fault
        When a column is not as it should be.
    """
    notes = []
    columns = zip(codes.reshape(len(codes), -1).T, own.reshape(len(own), -1).T, strict=True)
    for index, (drawn, labels_own) in enumerate(columns):
        which = f"number {index} of the code" if codes.ndim > 1 else "the code"
        notes.append(_check_column(drawn.double(), labels_own.double(), which, place))
    return "; ".join(dict.fromkeys(notes))


def _check_column(drawn: torch.Tensor, own: torch.Tensor, which: str, place: str) -> str:
    values, drawn_values = own.unique(), drawn.unique()
    if not _is_continuous(drawn):
        return _check_equally_often(drawn, torch.cat([values, drawn_values]).unique(), which, place)
    if len(values) > len(own) / 2:
        p = float(stats.ks_2samp(drawn.numpy(), own.numpy()).pvalue)
        if p < SIGNIFICANCE:
            raise Fault(
                f"{which} is distributed otherwise in random cues than in the labels' own (p = {p:.1g}, {place})",
                "draw a label uniformly, and a cue as for that label",
            )
        return "distributed as the labels' own cues are"
    return _check_reach(drawn, values, which, place)


def _is_continuous(drawn: torch.Tensor) -> bool:
    return len(drawn.unique()) > len(drawn) / 4 and bool((drawn != drawn.round()).any())


def _check_reach(drawn: torch.Tensor, values: torch.Tensor, which: str, place: str) -> str:
    """Test whether continuous draws are uniform from the least of the labels' values to a step above the largest."""
    low, high, least, most = (float(bound) for bound in (values[0], values[-1], drawn.min(), drawn.max()))
    step = float(values.diff().max()) if len(values) > 1 else 0.0
    slack = 0.05 * (high - low)
    if least > low + slack or most < high - slack or least < low - ROUNDING or most > high + step + ROUNDING:
        raise Fault(
            f"{which} of random cues lies in [{least:.3g}, {most:.3g}], those of labels in [{low:.3g}, {high:.3g}] "
            f"({place})",
            f"draw from all that labels have, at most a step of {step:.3g} further up",
        )
    piled = float(drawn.unique(return_counts=True)[1].max()) / len(drawn)
    if piled > LARGEST_PILE:
        return "continuous, within its reach; whether uniform is not checked, since many share one value"
    p = float(stats.kstest(drawn.numpy(), "uniform", args=(least, most - least)).pvalue)
    if p < SIGNIFICANCE:
        raise Fault(
            f"random cues are not uniform: {which} lies in [{least:.3g}, {most:.3g}] with the median "
            f"{float(drawn.median()):.3g} (p = {p:.1g}, {place})",
            "draw uniformly, as torch.rand(n, generator=generator) does",
        )
    return "continuous, uniform"


def _check_equally_often(drawn: torch.Tensor, values: torch.Tensor, which: str, place: str) -> str:
    """Test whether values are drawn equally often; many are joined to cells of as equal sizes as may be."""
    if len(values) == 1:
        return "constant"
    cells = min(CELLS, len(values))
    cell = torch.searchsorted(values, drawn) * cells // len(values)
    sizes = torch.bincount(torch.arange(len(values)) * cells // len(values), minlength=cells).double()
    counts = torch.bincount(cell, minlength=cells).double()
    p = float(stats.chisquare(counts.numpy(), (sizes / sizes.sum() * len(drawn)).numpy()).pvalue)
    if p < SIGNIFICANCE:
        odd = int((counts / sizes - len(drawn) / len(values)).abs().argmax())
        value = float(values[int((torch.arange(len(values)) * cells // len(values) == odd).nonzero()[0])])
        expected = len(drawn) * sizes[odd] / sizes.sum()
        raise Fault(
            f"random cues are not uniform: {which} is {value:g}"
            f"{' or near it' if cells < len(values) else ''} {int(counts[odd])} times in {len(drawn)}, and should be "
            f"{float(expected):.0f} times (p = {p:.1g}, {place})",
            "draw from all codes alike, as in torch.randint(K, (n,), generator=generator)",
        )
    return f"{len(values)} values"
