"""No two files import each other in a circle, not even through a late import or one for types alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TREES = {"fxpullback": ROOT / "fxpullback", "fxpullback.export": ROOT / "export"}


def modules() -> dict[str, Path]:
    """Every file of both trees, by the name it is imported under."""
    found: dict[str, Path] = {}
    for package, folder in TREES.items():
        for path in sorted(folder.rglob("*.py")):
            inside = path.relative_to(folder)
            if package == "fxpullback" and inside.parts[0] == "export":
                continue
            parts = [package, *inside.parent.parts, *([] if inside.stem == "__init__" else [inside.stem])]
            found[".".join(parts)] = path
    return found


def imports(path: Path, known: set[str]) -> set[str]:
    """What a file imports of the project, wherever in the file, and what it names to `import_module`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path} imports relatively"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else node.module for name in inner}
    return found & known


def with_packages(name: str, used: set[str], known: set[str]) -> set[str]:
    """What is imported by name, and the packages around it that are run for that, but for those around `name`."""
    around = {".".join(parts[:i]) for parts in (one.split(".") for one in used) for i in range(1, len(parts))}
    return used | {package for package in around & known if not f"{name}.".startswith(f"{package}.")}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """One circle of a graph, or an empty list."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for following in sorted(graph[name]):
            if found := visit(following, [*path, name]):
                return found
        done.add(name)
        return []

    for name in sorted(graph):
        if found := visit(name, []):
            return found
    return []


def test_no_file_imports_itself_through_others() -> None:
    files = modules()
    used = {name: imports(path, set(files)) - {name} for name, path in files.items()}
    graph = {name: with_packages(name, found, set(files)) for name, found in used.items()}
    assert len(graph) > 100
    assert not (found := circle(graph)), " -> ".join(found)


def test_the_compiler_never_imports_export() -> None:
    files = modules()
    wrong = [
        f"{name} imports {used}"
        for name, path in files.items()
        if not name.startswith("fxpullback.export")
        for used in imports(path, set(files))
        if used.startswith("fxpullback.export")
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("graph", "wanted"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b"}, "b": {"c"}, "c": {"b"}}, ["b", "c", "b"]),
        ({"a": {"a"}}, ["a", "a"]),
    ],
)
def test_a_circle_is_found(graph: dict[str, set[str]], wanted: list[str]) -> None:
    assert circle(graph) == wanted


def test_packages_around_an_import_count() -> None:
    known = {"a", "a.b", "a.b.c", "a.d", "a.d.e"}
    assert with_packages("a.d.e", {"a.b.c"}, known) == {"a.b.c", "a.b"}
    assert with_packages("a.b.c", {"a.b"}, known) == {"a.b"}


def test_late_imports_and_those_for_types_count(tmp_path: Path) -> None:
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from a.b import c\ndef f():\n    import a.d\n"
    (tmp_path / "x.py").write_text(text)
    assert imports(tmp_path / "x.py", {"a.b", "a.d"}) == {"a.b", "a.d"}
    assert imports(tmp_path / "x.py", {"a.b.c", "a.b"}) == {"a.b.c"}
