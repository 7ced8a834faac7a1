"""``python -m mmc_bench``, the same as ``mmc-bench``."""

from mmc_bench.cli.main import main

if __name__ == "__main__":
    main()
