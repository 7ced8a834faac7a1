"""An attribute of chosen complexity (Lubana et al., 2023, App. F.3, eq. 7; after Shah et al., 2020)."""

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Attribute:
    """T_K: one coordinate whose value tells a binary z, through K decision boundaries (one for K = 0).

    K >= 2: the value lies in one of K + 1 slabs with centres s = -K/2 … K/2, an odd s for z = 0 and an even
    one for z = 1. Inner slabs reach from s - δ to s + δ; the two at the ends have their inward half only. K = 0:
    s is -1 for z = 0 and 1 for z = 1, and the slabs reach 2δ inward. The value is then divided by σ·√D.

    Eq. 7 leaves three things open, which are settled here so that what the paper says of T_K holds:

    - Slabs at the ends are half as wide, so they are drawn half as often: with δ = 1/2 the attribute is uniform
      on ±√(3/D) and its variance is 1/D. (Drawn as often as the others, they would make it larger.)
    - The factor √3·2/K, or √3, gives variance 1/D at δ = 1/2 alone. Here it is 1/σ, with σ² the variance of
      s + ε, which is the same at δ = 1/2 and right for every other δ.
    - At K = 0, z stands for the sign 2z - 1: as typeset, z = 0 would be a single point.

    The mean is zero by symmetry, for either z when K >= 2. z can be read off the value for every δ < 1/2, when
    slabs do not touch: see `invert`. (The paper's S(K/2) has K at the wrong place: with K = 4, fig. 30 shows
    the five slabs -2 … 2 and not the three of S(2).)

    Parameters
    ----------
    complexity
        K, even and not negative.
    margin
        δ in [0, 1/2), half the width of a slab; between two slabs lies a gap of 1 - 2δ (2 - 4δ when K = 0).
    dimensions
        D.
    """

    complexity: int
    margin: float
    dimensions: int

    @property
    def end(self) -> int:
        """The centre of the last slab: K/2, or 1 when K = 0."""
        return max(self.complexity // 2, 1)

    @property
    def spread(self) -> float:
        """The half width of a slab: δ, or 2δ when K = 0."""
        return self.margin if self.complexity else 2 * self.margin

    @property
    def scale(self) -> float:
        """1/(σ√D), what s + ε is multiplied by.

        An inner slab at s has E[(s + ε)²] = s² + δ²/3, one at the end K/2·(K/2 - δ) + δ²/3 and half the weight.
        """
        inner = sum(s * s for s in range(1 - self.end, self.end)) if self.complexity else 0
        at_ends = self.end * (self.end - self.spread)
        variance = (inner + at_ends) / (self.complexity or 1) + self.spread**2 / 3
        return 1 / math.sqrt(variance * self.dimensions)

    def draw(self, z: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return T_K(z) for each z in {0, 1}: float64 of shape (n,)."""
        centres = self._slabs(z, generator)
        offsets = self.spread * (2 * torch.rand(len(z), generator=generator, dtype=torch.float64) - 1)
        inward = -centres.sign() * offsets.abs()
        return self.scale * (centres + torch.where(centres.abs() == self.end, inward, offsets))

    def invert(self, values: torch.Tensor) -> torch.Tensor:
        """Return the z behind each value: int64 of the values' shape."""
        if self.complexity == 0:
            return (values > 0).long()
        return 1 - (values / self.scale).round().long() % 2

    def _slabs(self, z: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return a slab's centre for each z, float64."""
        if self.complexity == 0:
            return 2.0 * z.double() - 1
        every = torch.arange(-self.end, self.end + 1)
        weights = torch.where(every.abs() == self.end, 0.5, 1.0)
        odd, even = (
            every[torch.multinomial(weights * (every % 2 == parity), len(z), replacement=True, generator=generator)]
            for parity in (1, 0)
        )
        return torch.where(z == 0, odd, even).double()
