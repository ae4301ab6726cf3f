"""docs/support.md, and the lines of the README about it, out of the results of `benchmarks.coverage`.

`python -m benchmarks.support` writes both; it computes nothing that is not in the results.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.coverage import RESULTS
from benchmarks.families import Network, families
from benchmarks.kinds.page import sections
from benchmarks.rows import Row, read

ROOT = Path(__file__).resolve().parent.parent
PAGE, README = ROOT / "docs" / "support.md", ROOT / "README.md"
LINE = re.compile(r"(<!-- support -->\n).*?(<!-- /support -->)", re.DOTALL)
"""Where the README's line stands."""

HEAD = """# What is supported

Written by `python -m benchmarks.support` from `benchmarks/coverage.jsonl`; not to be edited. What is measured, by
`python -m benchmarks.coverage --families`: one network of each family, the smallest that is no toy, with random
weights and its batch norms calibrated on noise, compiled with `SEMANTIC` and `Soft()`, written to a file, and
certified. It passes when every check of its certificate does: the graph's pullback is autograd's in float64, and ONNX
Runtime's is the same within the rounding of float32, on fresh inputs at batch 1 and 3; and when the ledger accounts
for every operator."""

COLUMNS = """Errors are the largest difference relative to the largest entry of the pullback: of the graph in float64,
of ONNX Runtime in float32. Operators are those of the graph, logits and pullback together; beside them their ratio to
the model's own. Seconds are processor time for compiling and writing the file; the memory is the most that the whole
run held. Networks that need too much memory or time at their own size were measured at a smaller one, under `input`."""

GATES = ("gates", "softened", "frozen", "exact")
TABLE = [
    "| family | network | input | gates | soft | constant | exact | graph | ONNX Runtime "
    "| operators | ratio | MB | s | GB |",
    "|---|---|" + "--:|" * 12,
]


def page(rows: dict[str, Row], networks: Sequence[Network], more: Sequence[str] = ()) -> str:
    """The text of docs/support.md; `more` are further sections."""
    found = measured(rows, networks)
    parts = [HEAD, "## In short", sentence(found), totals(found), *_conditions(found), COLUMNS]
    for kind in ("timm", "torchvision"):
        parts += [f"## {kind}", "\n".join([*TABLE, *(_line(row) for row in found if row.kind == kind)])]
    parts += ["## What keeps its exact derivative", _reasons(found)]
    unfinished = [row for row in found if row.status != "ok"]
    parts += ["## What does not pass", _causes(unfinished) if unfinished else "Nothing."]
    everything = [row for row in rows.values() if row.kind == "timm"]
    if len(everything) > len([n for n in networks if n.spec.startswith("timm:")]):
        parts += ["## All of timm", _summary(everything)]
    return "\n\n".join([*parts, *more]) + "\n"


def measured(rows: dict[str, Row], networks: Sequence[Network]) -> list[Row]:
    """The row of every network; behind one that does not pass, those of its family that do, smallest first."""
    found = []
    for network in networks:
        row = rows.get(network.spec) or _missing(network)
        found.append(row)
        if row.status != "ok":
            family = [r for r in rows.values() if (r.kind, r.family, r.status) == (row.kind, row.family, "ok")]
            found += sorted(family, key=lambda r: (r.parameters, r.spec))
    return found


def sentence(found: Sequence[Row]) -> str:
    """How many families of each library pass, in one line, and which not by their smallest network."""
    parts, others = [], []
    for kind in dict.fromkeys(row.kind for row in found):
        states: dict[str, list[str]] = defaultdict(list)
        for row in found:
            if row.kind == kind:
                states[row.family].append(row.status)
        passed, left = sum("ok" in s for s in states.values()), sum(s == ["not run"] for s in states.values())
        parts.append(f"{passed} of {len(states)} families of {kind}" + (f" ({left} not run)" if left else ""))
        others += [family for family, s in states.items() if "ok" in s[1:]]
    instead = f" ({', '.join(others)}: by larger ones)" if others else ""
    return f"{' and '.join(parts)} compile, export and pass their certificate, by their smallest network{instead}."


def totals(found: Sequence[Row]) -> str:
    """Gates and operators of all that passed, in one line."""
    passed = [row for row in found if row.status == "ok"]
    if not passed:
        return "Nothing passed."
    gates, soft, frozen, exact = (sum(getattr(row, name) for row in passed) for name in GATES)
    ratio = statistics.median(row.nodes / row.model_nodes for row in passed)
    return (
        f"Of their {gates} gates {soft} are softened, {frozen} held constant and {exact} kept exact. The graph of "
        f"logits and pullback has {ratio:.1f} times the operators of the model alone (median)."
    )


def readme(text: str, rows: dict[str, Row], networks: Sequence[Network]) -> str:
    """The README with its line about support."""
    found = measured(rows, networks)
    return LINE.sub(lambda m: f"{m[1]}{sentence(found)}\n{m[2]}", text)


def _missing(network: Network) -> Row:
    size = network.size[1:]
    return Row(network.spec, network.family, network.parameters, size, "not run", reason="no result yet")


def _conditions(found: Sequence[Row]) -> list[str]:
    """Versions and days of the runs."""
    ran = [row for row in found if row.versions]
    if not ran:
        return []
    used = {name: sorted({row.versions.get(name, "?") for row in ran}) for name in ran[0].versions}
    versions = ", ".join(f"{name} {' and '.join(found)}" for name, found in used.items())
    days = sorted({row.date for row in ran})
    return [f"Measured with {versions}; {days[0]}{f' to {days[-1]}' if len(days) > 1 else ''}."]


def _side(row: Row) -> str:
    """Height and width of the input, one number where they are the same."""
    return "x".join(map(str, dict.fromkeys(row.size)))


def _line(row: Row) -> str:
    if row.status != "ok":
        where = f" in {row.stage}" if row.stage else ""
        return f"| {row.family} | {row.name} | {_side(row)} | {row.status}{where} |" + " |" * 10
    runtime = max(row.errors[key] or 0.0 for key in ("ort1", "ort3"))
    took = row.cpu_seconds["compile"] + row.cpu_seconds["export"]
    cells = [
        row.family,
        row.name,
        _side(row),
        row.gates,
        row.softened,
        row.frozen,
        row.exact,
        f"{row.errors['graph']:.0e}",
        f"{runtime:.0e}",
        row.nodes,
        f"{row.nodes / row.model_nodes:.1f}",
        f"{row.megabytes:.0f}",
        f"{took:.0f}",
        f"{row.peak_gb:.1f}",
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


def _reasons(found: Sequence[Row]) -> str:
    """Which operators keep their exact derivative, why, how often and where."""
    counts: Counter[str] = Counter()
    where: dict[str, list[str]] = defaultdict(list)
    for row in found:
        counts.update(row.reasons)
        for reason in row.reasons:
            where[reason].append(row.name)
    if not counts:
        return "Nothing."
    lines = ["| operator | reason | times | in |", "|---|---|--:|---|"]
    for key, times in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        operator, reason = key.split(": ", 1)
        lines.append(f"| `{operator}` | {reason} | {times} | {', '.join(where[key])} |")
    return "\n".join(lines)


def cause(row: Row) -> str:
    """What failures have in common: the stage, the class of the error and the operator, or why it was not run."""
    if row.status == "not run":
        return f"not run: {re.sub(r'about [0-9]+ GB', 'more memory than there was', row.reason)}"
    kind = row.reason.split(":")[0]
    return f"{row.stage}: {kind}" + (f", `{row.operator}`" if row.operator else "")


def _causes(unfinished: Iterable[Row]) -> str:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in unfinished:
        groups[cause(row)].append(row)
    lines = []
    for key, rows in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        lines.append(f"- {key}: {', '.join(f'{row.kind}:{row.name}' for row in rows)}.")
        for reason in dict.fromkeys(row.reason for row in rows if row.status == "failed"):
            lines.append(f"  `{reason.replace('`', '')}`")
    return "\n".join(lines)


def _summary(everything: Sequence[Row]) -> str:
    counts = Counter("ok" if row.status == "ok" else cause(row) for row in everything)
    lines = [f"{counts['ok']} of {len(everything)} networks tried pass.", "", "| outcome | networks |", "|---|--:|"]
    lines += [f"| {key} | {n} |" for key, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    return "\n".join(lines)


def main() -> None:
    """Write the page and the README's line."""
    rows, networks = read(RESULTS), families()
    PAGE.write_text(page(rows, networks, sections()))
    README.write_text(readme(README.read_text(), rows, networks))


if __name__ == "__main__":
    main()
