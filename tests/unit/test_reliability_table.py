"""docs/reliability.md names a test for every fault, and every test it names exists."""

import ast
import re
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"
NAMED = re.compile(r"\[`(test_\w+)`\]\((\S+?)\)")


def faults() -> list[str]:
    rows = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return [row for row in rows if not row.startswith("| fault |")]


def test_the_table_is_read() -> None:
    assert len(faults()) > 25


@pytest.mark.parametrize("row", faults(), ids=lambda row: row.split("|")[1].strip())
def test_every_fault_names_tests_that_exist(row: str) -> None:
    named = NAMED.findall(row)
    assert named
    for name, link in named:
        module = ast.parse((DOCUMENT.parent / link).read_text(encoding="utf-8"))
        assert name in [node.name for node in module.body if isinstance(node, ast.FunctionDef)]
