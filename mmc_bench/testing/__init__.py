"""The conformance kit: does a plugin keep the promises that the benchmark builds on?

``mmc-bench check NAME`` asks from the command line, and a plugin's own tests ask with pytest::

    import pytest
    from mmc_bench.testing import checks_of

    @pytest.mark.parametrize("check", checks_of("method", "mine"))
    def test_mine_conforms(check):
        check()

Importing this module loads no torch.
"""

from mmc_bench.testing.checks import Check, Fault, NotChecked, Property
from mmc_bench.testing.conformance import checks_of, run_checks

__all__ = ["Check", "Fault", "NotChecked", "Property", "checks_of", "run_checks"]
