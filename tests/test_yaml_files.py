"""YAML files that the program writes, for readers of either version."""

import pytest
import yaml

from mmc_bench.system.yaml_files import parse_yaml, yaml_of

ODD = ["010", "0o10", "0x1F", "1e3", "1E3", ".5", "yes", "off", "y", "1:30", "1_000", "2024-01-31", "~", "", "=", "<<"]


@pytest.mark.parametrize("content", [*ODD, 10, 1e-5, 1e16, 1e300, True, None, "TRUE", "a: b"])
def test_what_is_written_is_read_back_by_readers_of_yaml_1_1_and_1_2(content):
    text = yaml_of({"value": [content]})
    for read in (parse_yaml, yaml.safe_load):
        back = read(text)["value"][0]
        assert back == content and type(back) is type(content)
