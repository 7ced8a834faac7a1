"""The conformance kit on what all plugins promise: a cheap registration, parameters that explain themselves."""

import pytest
from helpers.kit import checks, source_of

CHEAP, DOCUMENTS, VALIDATES = (
    "registers without a heavy import",
    "documents its parameters",
    "validates its parameters",
)
LR = 'lr: float = Field(0.1, gt=0, description="learning rate")'


@pytest.mark.parametrize("line", ["import torch", "from sklearn import linear_model"])
def test_a_heavy_import_at_registration_is_found_with_its_line(tmp_path, line):
    check = checks(tmp_path, "method", f"\n{line}\n" + source_of("method"), CHEAP)[CHEAP]
    module = line.split()[1]
    assert check.outcome == "failed"
    assert f"registering imports {module}" in check.message
    assert "planted.py, line 2" in check.message


@pytest.mark.slow
def test_a_heavy_import_within_a_hook_is_found(tmp_path):
    source = source_of("method").replace("(register):\n", "(register):\n    import pandas\n")
    assert "pandas" in checks(tmp_path, "method", source, CHEAP)[CHEAP].message


def test_a_whole_number_needs_no_bound_and_a_float_does_whatever_its_default(tmp_path):
    def outcome(folder, field):
        source = source_of("method").replace(LR, f"{field}, description='an offset')")
        return checks(tmp_path / folder, "method", source, VALIDATES)[VALIDATES].outcome

    assert outcome("integer", "seed: int = Field(0") == "ok"
    assert outcome("float", "offset: float = Field(0") == "failed"


@pytest.mark.parametrize(
    ("field", "name", "says"),
    [
        ("lr: float = Field(0.1, gt=0)", DOCUMENTS, "parameter lr of planted.py"),
        ("lr: float = Field(description='learning rate')", VALIDATES, "Field required"),
        ("lr: float = Field(0.1, description='learning rate')", VALIDATES, "lr has no bound"),
        ("lr: float = Field(-0.1, gt=0, description='learning rate')", VALIDATES, "lr refuses its own default -0.1"),
        ("lr: object = Field(0.1, description='learning rate')", VALIDATES, "lr takes any value"),
        ("model_config = {'extra': 'allow'}", VALIDATES, "takes parameters that it does not have"),
    ],
)
def test_a_parameter_that_explains_or_defends_itself_badly_is_found(tmp_path, field, name, says):
    check = checks(tmp_path, "method", source_of("method").replace(LR, field), name)[name]
    assert check.outcome == "failed"
    assert says in check.message


def test_a_spec_without_a_summary_is_found(tmp_path):
    check = checks(tmp_path, "method", source_of("method").replace("a fault", ""), DOCUMENTS)[DOCUMENTS]
    assert check.outcome == "failed" and "no summary" in check.message


def test_a_parameter_of_a_function_may_be_told_in_its_docstring(tmp_path):
    source = source_of("backbone").replace("(num_classes, input_shape):", "(num_classes, input_shape, depth: int = 2):")
    assert checks(tmp_path / "silent", "backbone", source, DOCUMENTS)[DOCUMENTS].outcome == "failed"
    told = source.replace("depth: int = 2):", 'depth: int = 2):\n    """Build; `depth` counts layers."""')
    assert checks(tmp_path / "told", "backbone", told, DOCUMENTS)[DOCUMENTS].outcome == "ok"


def test_a_part_of_a_word_describes_no_parameter(tmp_path):
    source = source_of("backbone").replace("(num_classes, input_shape):", "(num_classes, input_shape, t: int = 2):")
    source = source.replace("t: int = 2):", 't: int = 2):\n    """Build that."""')
    assert checks(tmp_path, "backbone", source, DOCUMENTS)[DOCUMENTS].outcome == "failed"
