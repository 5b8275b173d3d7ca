"""Every scenario of the list has a test that carries its number."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
LISTED = re.compile(r"^\| (\d+) \|", re.MULTILINE)
CARRIED = re.compile(r"[Ss]cenarios? ((?:\d+(?:, | and |-)?)+)")


def numbers_of(docstring: str) -> set[int]:
    """The scenario numbers a docstring names: "scenario 4", "scenarios 1 and 2", "scenarios 36, 41"."""
    return {int(number) for found in CARRIED.findall(docstring) for number in re.findall(r"\d+", found)}


def carried() -> set[int]:
    """All numbers that docstrings of test functions, classes and modules name."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {
        number
        for path in (ROOT / "tests").rglob("test_*.py")
        if "node_modules" not in path.parts
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, documented)
        for number in numbers_of(ast.get_docstring(node) or "")
    }


def test_each_scenario_has_a_test() -> None:
    """The page lists no scenario without a test."""
    listed = {int(number) for number in LISTED.findall((ROOT / "docs/explanation/scenarios.md").read_text())}
    assert listed - carried() == set()
    assert len(listed) > 50


def test_numbers_are_read_in_all_their_forms() -> None:
    """One number, several, and none."""
    assert numbers_of("A thing (scenario 4).") == {4}
    assert numbers_of("Scenarios 1 and 2, and scenario 57.") == {1, 2, 57}
    assert numbers_of("Scenarios 36, 41") == {36, 41}
    assert numbers_of("Nothing of 7") == set()
