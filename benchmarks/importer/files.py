"""Whole networks as files: imported, compiled, written, certified, measured one at a time."""

from __future__ import annotations

import json
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import ModelProto
from torch import Tensor, nn

import fxpullback
from fxpullback.export import to_onnx
from fxpullback.export.certify.file import certify
from fxpullback.importer.load import load

SOFTMAX = ("Softmax", "LogSoftmax", "Sigmoid")


@dataclass(frozen=True)
class File:
    """What became of one file.

    Attributes:
        name: of the network.
        source: where it comes from, or what wrote it.
        group: light, timm or file.
        exporter: what the file says wrote it, with the version.
        value: the value that is explained, where it is not the file's output.
        nodes: of the file.
        gates: of the ledger.
        logits: how far ONNX Runtime on the file is off, at most.
        module: how far the pullback is off the module's own; None where there is no module.
        passed: whether the certificate passed.
        reason: why not.
        seconds: that it took.
        story: whether the ledger has the gates of the module's: the same operators by the same rules, in order.
    """

    name: str
    source: str = ""
    nodes: int = 0
    gates: int = 0
    logits: float | None = None
    module: float | None = None
    passed: bool = False
    reason: str = ""
    group: str = ""
    exporter: str = ""
    value: str = ""
    seconds: float = 0.0
    story: str = ""

    @property
    def spec(self) -> str:
        """What tells it from others: `light/resnet50`."""
        return f"{self.group}/{self.name}"

    def to_json(self) -> str:
        """One line; what is empty is left out."""
        return json.dumps({k: v for k, v in asdict(self).items() if v not in ("", None)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> File:
        """Read back what `to_json` wrote."""
        known = {f.name for f in fields(cls)}
        return cls(**{k: v for k, v in json.loads(text).items() if k in known})


@dataclass(frozen=True)
class Job:
    """One file to measure.

    Attributes:
        group: light, timm or file.
        name: of the network.
        source: where it comes from.
        make: writes the file to a path; returns the module it is of, where there is one.
        options: of the file: `logits` and `input`, names of values; `sizes`, by input, where the file leaves them free;
            `held`, numbers of inputs that are held; `at` and `positions`, as of `fxpullback.compile`.
    """

    group: str
    name: str
    source: str
    make: Callable[[Path], nn.Module | None]
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def empty(self) -> File:
        """The row before anything is measured."""
        return File(self.name, self.source, group=self.group)


def measured(job: Job) -> File:
    """Write a file, import it, compile, write, certify."""
    start = time.monotonic()
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        row = job.empty
        try:
            path = Path(folder) / f"{job.name}.onnx"
            module = job.make(path)
            model = onnx.load(path)
            row = replace(row, nodes=len(model.graph.node), exporter=exporter(model))
            row = _certified(row, job, model, path, module)
        except Exception as broken:
            row = replace(row, reason=f"{type(broken).__name__}: {' '.join(str(broken).split())[:300]}")
    return replace(row, seconds=round(time.monotonic() - start, 1))


def _certified(row: File, job: Job, model: ModelProto, path: Path, module: nn.Module | None) -> File:
    value = job.options.get("logits") or in_front(model)
    loaded = load(path, value, job.options.get("input"), job.options.get("held"))
    ends = {name: job.options[name] for name in ("at", "positions") if name in job.options}
    pb = fxpullback.compile(loaded, given(loaded, job.options), output=value, **ends)
    row = replace(row, value=value or "", gates=pb.ledger.gates)
    certificate = certify(pb, to_onnx(pb, path.with_name("explained.onnx"), certify=False))
    logits = max(c.measured for c in certificate.checks if c.name.startswith("original file"))
    failed = next((f"{c.name}: {c.measured:.1e}" for c in certificate.checks if not c.passed), "")
    row = replace(row, logits=float(f"{logits:.2e}"), passed=not failed, reason=failed)
    return row if module is None else _beside(row, pb, module)


def exporter(model: ModelProto) -> str:
    """What a file says wrote it, `pytorch 2.3.1`; or what its names say."""
    said = f"{model.producer_name} {model.producer_version}".removesuffix(" None").strip()
    named = any(node.output and node.output[0].startswith("p2o.") for node in model.graph.node)
    return said or ("Paddle2ONNX, by its names" if named else "not said")


def in_front(model: ModelProto) -> str | None:
    """The value in front of the softmax or sigmoid that makes a file's only output; None where it ends otherwise."""
    if len(model.graph.output) != 1:
        return None
    makers = {output: node for node in model.graph.node for output in node.output}
    node = makers.get(model.graph.output[0].name)
    while node is not None and node.op_type == "Identity":
        node = makers.get(node.input[0])
    return str(node.input[0]) if node is not None and node.op_type in SOFTMAX else None


def given(loaded: Any, options: Mapping[str, Any]) -> tuple[Tensor, ...] | None:
    """Examples of the inputs, where the options say sizes; else None, and the file says them."""
    sizes = options.get("sizes")
    if not sizes:
        return None
    wanted = [sizes.get(value.name) or [2, *(int(n or 1) for n in value.sizes[1:])] for value in loaded.wanted]
    return tuple(loaded.example(value, own) for value, own in zip(loaded.wanted, wanted, strict=True))


def _beside(row: File, pb: Any, module: nn.Module) -> File:
    """The row with what the module says: its pullback and its gates, both calibrated alike."""
    x = torch.randn((2, *pb.example.shape[1:]), generator=torch.Generator().manual_seed(1))
    own, target = fxpullback.compile(module, x), torch.tensor([1, 2])
    wanted = own(x, target)[1]
    apart = float((pb(x, target)[1] - wanted).abs().max() / wanted.abs().max())
    return replace(row, module=float(f"{apart:.2e}"), story=story(gates(pb), gates(own)))


def gates(pb: Any) -> list[str]:
    """Operator and rule of each gate, in order."""
    return [f"{row.operator} by {row.rule or 'no rule'}" for row in pb.ledger.rows if row.gate]


def story(found: list[str], wanted: list[str]) -> str:
    """`same`, or the first gate that differs."""
    if found == wanted:
        return "same"
    pairs = zip([*found, "nothing"], [*wanted, "nothing"], strict=False)
    at, (one, other) = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
    return f"{len(found)} and {len(wanted)} gates, the first that differs at {at + 1}: {one}, of the module {other}"
