"""Files and functions that a reader takes in at once; what is too long is named."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TREES = ("fxpullback", "export", "tests", "benchmarks", "examples")
LINES_OF_A_FILE, LINES_OF_A_FUNCTION, MEDIAN_FILE = 350, 60, 150

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources() -> list[Path]:
    """Every file of Python; the link fxpullback/export leads to a tree that is read by itself."""
    found = [path for tree in TREES for path in (ROOT / tree).rglob("*.py")]
    return sorted(path for path in found if (ROOT / "fxpullback" / "export") not in path.parents)


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def long_functions(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(text_of(path))):
        if isinstance(node, Function):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > LINES_OF_A_FUNCTION:
                yield f"{path.relative_to(ROOT)}:{node.lineno}: {node.name} has {lines} lines"


def test_every_tree_is_read() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in sources()} == set(TREES)


def test_no_file_is_too_long() -> None:
    lengths = {path.relative_to(ROOT): len(text_of(path).splitlines()) for path in sources()}
    long = [f"{path} has {lines} lines" for path, lines in lengths.items() if lines > LINES_OF_A_FILE]
    assert not long, f"split by topic, {LINES_OF_A_FILE} lines are the most:\n" + "\n".join(long)


def test_no_function_is_too_long() -> None:
    long = [said for path in sources() for said in long_functions(path)]
    assert not long, f"one idea a function, {LINES_OF_A_FUNCTION} lines are the most:\n" + "\n".join(long)


def test_files_are_small_on_the_whole() -> None:
    lengths = [len(text_of(path).splitlines()) for path in sources()]
    assert statistics.median(lengths) < MEDIAN_FILE
