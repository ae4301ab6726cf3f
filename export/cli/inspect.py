"""`fxpullback inspect`: what a file says about itself, readable at 100 columns."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fxpullback.contract.calibrated import calibrated_text
from fxpullback.export.cli.terminal import COLUMNS
from fxpullback.export.runtime.described import Described, beside_rows, opened, origin_text, told_inputs
from fxpullback.export.runtime.package import DEVICE, Package, inputs_of
from fxpullback.export.runtime.session import Session
from fxpullback.importer.origin import locations

GATES = ("softened", "frozen", "exact", "blocking")
_INDENT = 5  # what the number of a row takes


def run(file: Path, *, full: bool, console: Console) -> None:
    """Print the facts of `file`, its ledger and its certificate.

    Raises:
        SessionError: Not a file of fxpullback.
    """
    session = opened(file)
    console.print(facts_table(session))
    console.print()
    rows = session.ledger.get("rows", [])
    console.print(f"Ledger: {ledger_sum(session.ledger)}", style="bold", markup=False)
    if full:
        for part in rows_in_full(rows):
            console.print(part)
    else:
        console.print(gates_table(rows))
        console.print(others_table(rows))
        console.print("one line per operator: fxpullback inspect --full", style="dim")
    console.print()
    if session.certificate is None:
        console.print("Certificate: none in the file; make one with fxpullback verify", style="bold")
    else:
        console.print(certificate_table(session.certificate))


def facts_table(session: Session | Described) -> Table:
    """Two columns: what, and its value."""
    meta = session.metadata
    table = Table(box=None, show_header=False, pad_edge=False, width=COLUMNS)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    is_code = isinstance(session, Session) and session.runtime == Package.runtime
    computes = package_facts(session) if is_code else onnx_facts(session)
    for name, value in (
        ("file", session.path),
        *((("imported from", origin_text(meta.origin)),) if meta.origin else ()),
        ("fxpullback", meta.version),
        ("program", described(meta.program)),
        ("rules", described(meta.rules, leave_out=("temperatures", "calibrated", "spread", "calibrated_on"))),
        ("temperatures", temperatures(meta.ledger.get("rows", []), meta.rules)),
        ("target", meta.target),
        ("contribution", meta.contributions or "none"),
        ("parts", meta.parts or "none"),
        ("precision", precision_text(meta.precision)),
        ("rewrites", ", ".join(f"{name} {count}" for name, count in meta.rewrites.items() if count) or "none"),
        *computes,
        *((("text", meta.text),) if meta.text is not None else ()),
        ("preprocessing", described(meta.preprocessing or {}) or "not given"),
        ("classes", class_text(session)),
        ("weights sha256", meta.weights_sha256 or "not given"),
    ):
        table.add_row(name, escape(str(value)))
    return table


def precision_text(precision: Mapping[str, Any]) -> str:
    """`fp16; in float32: 22 of 45 operators of a pullback (special_ndtr 4, ...); cotangents scaled by 512`."""
    wide: Mapping[str, int] = precision.get("float32", {})
    if not wide:
        return str(precision["name"])
    names = ", ".join(f"{name.removeprefix('aten.')} {count}" for name, count in wide.items())
    return (
        f"{precision['name']}; in float32: {sum(wide.values())} of {precision['operators']} operators of a pullback "
        f"({names}); {precision['casts']} casts; cotangents scaled by {precision['cotangent_scale']:g}"
    )


def onnx_facts(session: Session | Described) -> list[tuple[str, str]]:
    """What an ONNX file computes."""
    model = onnx.load(session.path, load_external_data=False)
    operators = Counter(node.op_type for node in model.graph.node)
    common = ", ".join(f"{name} {count}" for name, count in operators.most_common(8))
    return [
        *beside_rows(session.metadata.beside, len(model.graph.node)),
        ("size", disk_size(session.path, model)),
        ("opset", ", ".join(f"{item.domain or 'ai.onnx'} {item.version}" for item in model.opset_import)),
        ("nodes", f"{len(model.graph.node)}: {common}{', ...' if len(operators) > 8 else ''}"),
        ("inputs", signature(model.graph.input)),
        *told_inputs(session.metadata),
        ("outputs", signature(model.graph.output)),
    ]


def package_facts(session: Session | Described) -> list[tuple[str, str]]:
    """What a package is, as far as machine code says."""
    return [
        ("size", mebibytes(session.path.stat().st_size)),
        ("machine code", f"by {Package.runtime}, for {session.metadata.raw[DEVICE]}"),
        ("inputs", ", ".join(map(str, inputs_of(session.metadata.raw).values()))),
        *told_inputs(session.metadata),
    ]


def disk_size(path: Path, model: onnx.ModelProto) -> str:
    """Size of the file, and of its external data."""
    size = path.stat().st_size
    text = mebibytes(size)
    for name in sorted(locations(model)):
        other = path.parent / name
        text += f" and {mebibytes(other.stat().st_size) if other.is_file() else 'absent'} in {name}"
    return text


def mebibytes(size: int) -> str:
    """`22.1 MiB`."""
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.1f} KiB"


def described(value: Any, leave_out: Sequence[str] = ()) -> str:
    """A JSON object on one line, empty values left out: `double, alpha 10`."""
    if not isinstance(value, Mapping):
        return str(value)
    parts = []
    for key, item in value.items():
        if key in leave_out or item is None or item in ([], {}, ""):
            continue
        text = item if isinstance(item, str) else json.dumps(item)
        parts.append(text if key == "name" else f"{key.replace('_', ' ')} {text}")
    return ", ".join(parts)


def temperatures(rows: Sequence[Mapping[str, Any]], rules: Any) -> str:
    """Temperatures of the rules that were applied: `gelu 1, relu 0.25-3.1; 26 gates calibrated on 16 pictures`."""
    applied: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row.get("rule") and row.get("temperature") is not None:
            applied.setdefault(str(row["rule"]), []).append(row)
    text = ", ".join(f"{name} {span(found)}" for name, found in applied.items()) or "none"
    if not isinstance(rules, Mapping):
        return text
    own, how = len(rules.get("calibrated") or {}), calibrated_text(rules.get("calibrated_on") or {})
    if own and how:
        return f"{text}; {own} gates {how}, each at {rules['spread']:g} standard deviations of its input"
    return "; ".join([text, *([f"{own} gates calibrated one by one"] if own else [how] if how else [])])


def signature(values: Iterable[onnx.ValueInfoProto]) -> str:
    """`input float32 [batch, 3, 224, 224], target int64 [batch]`."""
    parts = []
    for value in values:
        kind = value.type.tensor_type
        shape = ", ".join(dim.dim_param or str(dim.dim_value) for dim in kind.shape.dim)
        name = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
        parts.append(f"{value.name} {name} [{shape}]")
    return ", ".join(parts)


def class_text(session: Session | Described) -> str:
    """How many classes, and the first names."""
    if session.classes is None:
        return f"{session.class_count}, without names"
    first = ", ".join(name.split(",")[0] for name in session.classes[:4])
    return f"{session.class_count}: {first}{', ...' if session.class_count > 4 else ''}"


def ledger_sum(ledger: Mapping[str, Any]) -> str:
    """`49 of 49 gates softened (12 of them held constant), 0 kept exact, 1 blocking; 633 operators`."""
    gates, soft, frozen, exact = (int(ledger.get(key, 0)) for key in ("gates", "softened", "frozen", "exact"))
    held = f" ({frozen} of them held constant)" if frozen else ""
    stops = f", {ledger['blocking']} blocking" if ledger.get("blocking") else ""
    count = len(ledger.get("rows", []))
    return f"{soft + frozen} of {gates} gates softened{held}, {exact} kept exact{stops}; {count} operators"


def gates_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Gates, and whatever else is exact; alike ones of like modules in one line."""
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in filter(_is_gate, rows):
        why = re.sub(r"_\d+\b", "", _rule(row))
        groups.setdefault((pattern(row), _operator(row), str(row["verdict"]), why), []).append(row)
    table = _ledger_frame(
        ("", 4), ("module", 30), ("operator", 19), ("verdict", 8), ("rule or reason", 20), ("T", 7), ("nodes", 5)
    )
    for (module, operator, verdict, why), found in groups.items():
        nodes = sum(int(row.get("pullback_nodes") or 0) for row in found)
        table.add_row(*map(escape, (f"{len(found)}x", module, operator, verdict, why, span(found), str(nodes))))
    return table


def others_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Everything that is no gate, by verdict and operator."""
    table = Table(box=None, pad_edge=False, show_header=False, width=COLUMNS)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    others = [row for row in rows if not _is_gate(row)]
    for verdict in sorted({str(row.get("verdict")) for row in others}):
        found = Counter(_operator(row) for row in others if row.get("verdict") == verdict)
        table.add_row(verdict, escape(", ".join(f"{name} {count}" for name, count in found.most_common())))
    return table


def rows_in_full(rows: Sequence[Mapping[str, Any]]) -> Iterator[Table]:
    """Every operator of the model, and under one that stayed exact why it is none of the gates written out."""
    waiting: list[Mapping[str, Any]] = []
    first = True
    for row in rows:
        waiting.append(row)
        if row.get("why_not"):
            yield rows_table(waiting, head=first)
            yield why_not_table(row["why_not"])
            waiting, first = [], False
    if waiting or first:
        yield rows_table(waiting, head=first)


def why_not_table(told: Sequence[Sequence[str]]) -> Table:
    """`no attention: its output meets ...`, a line for every pattern that has something to say, wrapped."""
    table = Table(box=None, pad_edge=False, show_header=False, width=COLUMNS, padding=(0, 1, 0, 0))
    table.add_column(width=_INDENT - 1)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold", ratio=1, style="dim")
    for name, sentence in told:
        table.add_row("", escape(f"no {name}:"), escape(sentence))
    return table


def rows_table(rows: Sequence[Mapping[str, Any]], head: bool = True) -> Table:
    """Operators of the model, one a line."""
    table = _ledger_frame(
        ("#", 4),
        ("module", 22),
        ("source", 18),
        ("operator", 15),
        ("verdict", 8),
        ("rule or reason", 15),
        ("T", 5),
        ("nodes", 5),
        head=head,
    )
    for row in rows:
        cells = (
            str(row.get("index", "")),
            str(row.get("module") or row.get("node") or ""),
            str(row.get("source") or ""),
            _operator(row),
            str(row.get("verdict", "")),
            _rule(row),
            span([row]),
            str(row.get("pullback_nodes", "")),
        )
        table.add_row(*map(escape, cells))
    return table


def certificate_table(certificate: Mapping[str, Any] | str) -> Table:
    """Every check: what was measured, the bound, and the verdict."""
    data: Mapping[str, Any] = json.loads(certificate) if isinstance(certificate, str) else certificate
    verdict = "passed" if data.get("passed") else "NOT PASSED"
    table = Table(
        box=None,
        pad_edge=False,
        width=COLUMNS,
        title=f"Certificate: {verdict}",
        title_justify="left",
        title_style="bold",
    )
    table.add_column("check", overflow="fold")
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("bound", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("detail", overflow="fold", ratio=1)
    for check in data.get("checks", []):
        passed = bool(check.get("passed"))
        measured = "not finite" if check["measured"] is None else f"{check['measured']:.3g}"
        cells = (measured, f"{check['bound']:.3g}", "ok" if passed else "FAILED")
        table.add_row(
            escape(str(check["name"])), *cells, escape(str(check.get("detail") or "")), style=None if passed else "red"
        )
    environment = data.get("environment") or {}
    if environment:
        table.caption = escape("made with " + ", ".join(f"{key} {value}" for key, value in environment.items()))
        table.caption_justify = "left"
    return table


def pattern(row: Mapping[str, Any]) -> str:
    """The module path with numbers as stars: `blocks.*.attn`."""
    path = str(row.get("module") or "") or "(model)"
    return re.sub(r"(?<![^.])\d+(?![^.])", "*", path)


def span(rows: Sequence[Mapping[str, Any]]) -> str:
    """The temperature of rows, or from the smallest to the largest."""
    found = sorted(float(row["temperature"]) for row in rows if row.get("temperature") is not None)
    if not found:
        return ""
    low, high = f"{found[0]:.3g}", f"{found[-1]:.3g}"
    return low if low == high else f"{low}-{high}"


def _is_gate(row: Mapping[str, Any]) -> bool:
    """Whether a row belongs in the table of gates: it is one, or it keeps its exact derivative."""
    verdict = row.get("verdict")
    return verdict == "exact" or bool(row.get("gate", verdict in GATES))


def _rule(row: Mapping[str, Any]) -> str:
    """The rule, with its noise where that is not normal, or the reason for none: `relu, logistic`."""
    noise = row.get("noise", "normal")
    return str(row.get("rule") or row.get("reason") or "") + ("" if noise == "normal" else f", {noise}")


def _operator(row: Mapping[str, Any]) -> str:
    """The operator without its namespace and default overload: `relu` for `aten.relu.default`."""
    return str(row.get("operator", "")).removeprefix("aten.").removesuffix(".default")


def _ledger_frame(*columns: tuple[str, int], head: bool = True) -> Table:
    """A table of fixed widths that fills 100 columns; numbers to the right."""
    table = Table(box=None, pad_edge=False, show_header=head, width=COLUMNS, padding=(0, 1, 0, 0))
    for name, width in columns:
        right = name in ("", "#", "T", "nodes")
        table.add_column(name, width=width, justify="right" if right else "left", overflow="fold")
    return table
