"""Many sparse logistic regressions at once, on the device, in float64."""

import torch
from torch.nn import functional as F

#: Numbers of designs that are held at once, float64: with their parts about 2.7 GB, and for 500 images with 512
#: features another GB of Newton matrices.
HELD = 2**26

#: Sets of numbers that are tried for a problem, and Newton steps for each set; a problem takes some 4 and 30.
ROUNDS, STEPS = 30, 80


def sparse_regressions(
    inputs: torch.Tensor, rows: torch.Tensor, signs: torch.Tensor, strengths: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the w of min_w ‖w‖₁ + C Σ_i log(1 + exp(-y_i wᵀ(x_i, 1))) of each of B problems, and which are solved.

    Parameters
    ----------
    inputs
        x, float64, (N, F).
    rows
        Each problem's images, (B, n).
    signs
        Their y = ±1, float64, (B, n).
    strengths
        C, float64, (B,).

    Returns
    -------
    tuple
        w, (B, F + 1), and a truth value for each problem, (B,): false where features are so many times each other's
        copies, or C so large, that the conditions of a minimum do not hold to 10⁻⁹ after all steps.
    """
    design = F.pad(inputs, (0, 1), value=1.0)  # (N, F + 1)
    together = max(1, HELD // (design.shape[1] * rows.shape[1]))
    parts = zip(rows.split(together), signs.split(together), strengths.split(together), strict=True)
    found = [_in_memory(design, *part) for part in parts]
    return torch.cat([w for w, _ in found]), torch.cat([solved for _, solved in found])


def _in_memory(
    design: torch.Tensor, rows: torch.Tensor, signs: torch.Tensor, strengths: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Solve problems together or, where memory runs out, one half after the other."""
    try:
        return _by_working_sets(signs[:, :, None] * design[rows], strengths[:, None])
    except torch.OutOfMemoryError:
        if len(rows) == 1:
            raise
    half = len(rows) // 2  # outside the handler, whose error keeps what was computed
    parts = [_in_memory(design, rows[s], signs[s], strengths[s]) for s in (slice(half), slice(half, None))]
    return torch.cat([w for w, _ in parts]), torch.cat([solved for _, solved in parts])


def _by_working_sets(design: torch.Tensor, strengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Solve the problems of designs y (x, 1), (B, n, D), and strengths (B, 1).

    Most of w is 0: solve for some numbers at a time, those that are not 0 and those whose gradient is largest, until
    no other has |∇f| > 1, f being the logistic part.
    """
    w = torch.zeros_like(design[:, 0])
    solved = torch.zeros(len(w), dtype=torch.bool, device=w.device)
    todo = torch.arange(len(w), device=w.device)
    for _ in range(ROUNDS):
        gradient = _gradient(design[todo], strengths[todo], w[todo])[0].abs()
        done = gradient.amax(1) <= 1 + 1e-9
        solved[todo[done]] = True
        todo, gradient = todo[~done], gradient[~done]
        if not len(todo):
            break
        support = w[todo] != 0
        size = min(w.shape[1], max(64, 2 * int(support.sum(1).max())))
        chosen = torch.where(support, torch.inf, gradient).topk(size).indices  # (b, size)
        part = design[todo].gather(2, chosen[:, None].expand(-1, design.shape[1], -1))
        values, converged = _interior_point(part, strengths[todo])
        w[todo] = torch.zeros_like(w[todo]).scatter(1, chosen, values)
        todo = todo[converged]
    return w, solved


def _interior_point(design: torch.Tensor, strengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Solve problems as above for all of w by a primal-dual interior-point method, and tell which have converged.

    With w = p - q and p, q ≥ 0, a minimum has ∇f(w) + 1 = a and -∇f(w) + 1 = b, with pa = qb = 0 and a, b ≥ 0.
    Newton's method solves this for pa = qb = μ while μ falls (Wright, Primal-Dual Interior-Point Methods, 1997). As
    a + b = 2 all along, a step solves (∇²f + 1/e) dw = (μ/a - μ/b - w)/e - (∇f + 1 - a), e = p/a + q/b.
    """
    p, q, a, b = (torch.ones_like(design[:, 0]) for _ in range(4))
    for _ in range(STEPS):
        gradient, wrong = _gradient(design, strengths, p - q)
        dual, gap = gradient + 1 - a, (p * a + q * b).mean(1)  # (B, D), (B,)
        converged = (dual.abs().amax(1) < 1e-11) & (gap < 1e-15)
        if converged.all():
            break
        mu, e = 0.05 * gap[:, None], p / a + q / b
        matrix = design.mT @ ((strengths * wrong * (1 - wrong))[:, :, None] * design)  # (B, D, D)
        diagonal = matrix.diagonal(dim1=1, dim2=2)
        diagonal += 1 / e + 1e-14 * diagonal.amax(1, keepdim=True)  # the last for features that are alike
        aim = mu / a - mu / b - (p - q)
        factor, _ = torch.linalg.cholesky_ex(matrix)
        dw = torch.cholesky_solve((aim / e - dual)[:, :, None], factor)[:, :, 0]
        da = (aim - dw) / e
        values = torch.stack([p, q, a, b])
        changes = torch.stack([mu / a - p - p / a * da, mu / b - q + q / b * da, da, -da])
        shrinkage = (-changes / values).amax((0, 2))  # (B,)
        steps = torch.where(converged, 0.0, 0.995 / shrinkage.clamp(min=0.995))  # no value becomes 0
        p, q, a, b = values + steps[:, None] * changes
    w = torch.where(torch.maximum(p, q) < torch.minimum(a, b), 0.0, p - q)
    return w, converged


def _gradient(design: torch.Tensor, strengths: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ∇f, (B, D), and the probabilities of the wrong sign, (B, n)."""
    wrong = torch.sigmoid(-(design @ w[:, :, None])[:, :, 0])
    return -strengths * (design.mT @ wrong[:, :, None])[:, :, 0], wrong
