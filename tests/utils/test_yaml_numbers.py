"""YAML of people and programs: numbers that versions of YAML read differently are text, and no file bypasses this."""

import math
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.utils.readers import parse_yaml
from tests.helpers.two_joint_hand import HAND, XML

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("0", 0), ("-12", -12), ("+3", 3), ("0x1F", 31), ("1.5", 1.5), ("-.5", -0.5), ("3.", 3.0), ("00.5", 0.5)],
        *[("1e-5", 1e-5), ("1.e3", 1000.0), ("-2E+2", -200.0), (".inf", math.inf), ("-.INF", -math.inf)],
        *[
            (word, word)
            for word in ("010", "-007", "1:30", "190:20:30.15", "1_000", "0b11", "0o17", "1_0.5", "08", ".")
        ],
    ],
)
def test_numbers_are_those_that_every_version_of_yaml_reads_alike(text, value):
    found = parse_yaml(f"key: {text}", "test")["key"]
    assert found == value and type(found) is type(value)


@given(st.one_of(st.integers(), st.floats(allow_nan=False), st.from_regex(r"[-+0-9_:.xobef]{1,9}", fullmatch=True)))
def test_what_the_project_writes_is_read_back(value):
    if isinstance(value, str) and re.fullmatch(r"[-+]?[0-9.]+e[-+]?[0-9]+", value):
        return  # text that looks like 1e5 is written without quotation marks
    assert parse_yaml(yaml.safe_dump({"key": value}), "test") == {"key": value}


@pytest.mark.parametrize("number", ["010", "1:30", "1_0", "0o17"])
def test_a_doubtful_number_of_a_hand_is_refused_with_its_key(tmp_path, number):
    (tmp_path / "model.xml").write_text(XML)
    text = yaml.safe_dump(HAND | {"model": "model.xml"}, sort_keys=False)
    (tmp_path / "hand.yaml").write_text(re.sub(r"\bkp: .*", f"kp: {number}", text))
    with pytest.raises(
        ValueError, match=rf"hand\.yaml: 'actuation\.kp' expects float, got '{number}'\. Versions of YAML"
    ):
        HandSpec.load(tmp_path)


def test_no_module_reads_yaml_by_another_loader():
    elsewhere = re.compile(r"yaml\.(safe_load|load|full_load|unsafe_load|SafeLoader|CSafeLoader)\b")
    reads = [
        path.relative_to(ROOT).as_posix()
        for folder in ("configs", "dexgrasp", "perception", "policies", "sim", "ros2_ws")
        for path in (ROOT / folder).rglob("*.py")
        if elsewhere.search(path.read_text()) and "test" not in path.name and not path.is_symlink()
    ]
    assert set(reads) == {"dexgrasp/utils/readers.py"}
