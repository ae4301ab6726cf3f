"""What a pullback costs: ONNX Runtime's time for it as a ratio to the forward of the same network, two of them in turn.

`python -m benchmarks.speed` measures every network, each in a process of its own, and adds its row to
benchmarks/speed.jsonl, of which `python -m benchmarks.results` makes benchmarks/RESULTS.md.
`--names resnet50 --profile` names the costliest operators of one.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch

import fxpullback
from benchmarks.alternate import alternate
from benchmarks.measure import versions
from benchmarks.models import build
from benchmarks.peak import peak_mb
from benchmarks.profile import told
from fxpullback import SEMANTIC, Ascent, Double, Soft
from fxpullback.export import to_onnx
from fxpullback.export.runtime.onnx_file import cpu_options
from fxpullback.lower import REWRITES
from fxpullback.pipeline import Pullback
from fxpullback.unroll import Program

RESULTS = Path(__file__).parent / "speed.jsonl"
NETWORKS = (
    "resnet50",
    "vgg11_bn",
    "densenet121",
    "mobilenetv2_100",
    "efficientnet_b0",
    "convnext_tiny",
    "vit_tiny_patch16_224",
    "pvt_v2_b1",
    "swin_tiny_patch4_window7_224",
)
BATCHES = (1, 8)
PICTURES = (1, 8, 32)
"""Batch sizes at which the time of one picture's soft pullback is compared."""
STEPS = 5
LEAST = 5
"""Rounds at least, whatever they take."""
PROGRAMS: dict[str, Program] = {"soft": Soft(), "double": Double(), "ascent": Ascent(steps=STEPS)}


def plain_forward(model: torch.nn.Module, example: torch.Tensor, path: Path) -> None:
    """The network alone, exported and optimised as torch.onnx.export does it, the batch free."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pair = torch.cat([example, example])
        shapes = ({0: torch.export.Dim("batch")},)
        torch.onnx.export(
            model, (pair,), path, dynamo=True, optimize=True, verbose=False, dynamic_shapes=shapes, external_data=False
        )


def runner(file: Path, x: np.ndarray[Any, Any]) -> Callable[[], Any]:
    """Call that runs a file on a batch, the top classes as its target."""
    session = ort.InferenceSession(str(file), cpu_options(), providers=["CPUExecutionProvider"])
    feed: dict[str, Any] = {}
    for given in session.get_inputs():
        feed[given.name] = x if given.type == "tensor(float)" else np.arange(len(x), dtype=np.int64)
    return lambda: session.run(None, feed)


def eager(pb: Pullback, x: torch.Tensor) -> Callable[[], Any]:
    """Call that takes the same pullback by PyTorch's autograd through the injected form."""
    rows = torch.arange(len(x))

    def call() -> object:
        leaf = x.clone().requires_grad_()
        logits = pb.rewritten(leaf)[0]
        return torch.autograd.grad(logits[rows, rows].sum(), leaf)

    return call


def measure(
    name: str, batches: Sequence[int], budget: float, skip: Sequence[str], programs: Sequence[str]
) -> dict[str, Any]:
    """Everything that is measured of one network."""
    model, example = build(f"timm:{name}")
    row: dict[str, Any] = {"name": name, "size": list(example.shape[2:]), "batches": {}}
    with tempfile.TemporaryDirectory() as scratch:
        files = {kind: Path(scratch) / f"{kind}.onnx" for kind in ("forward", *programs)}
        plain_forward(model, example, files["forward"])
        for kind in programs:
            begin = time.process_time()
            pb = fxpullback.compile(model, (example,), rules=SEMANTIC, program=PROGRAMS[kind], without=skip)
            to_onnx(pb, files[kind], certify=False)
            row[f"{kind}_compile_s"] = round(time.process_time() - begin, 1)
        row["megabytes"] = {kind: round(file.stat().st_size / 1e6, 2) for kind, file in files.items()}
        row["rewrites"] = dict(pb.rewrites)
        for batch in batches:
            x = torch.randn(batch, *example.shape[1:]).clamp(-2, 2)
            row["batches"][str(batch)] = at_batch(files, pb, x, budget)
        if "soft" in files:
            row["picture_ms"] = per_picture(files["soft"], example.shape[1:])
        peak = {kind: peak_mb(files[kind], max(batches)) for kind in ("forward", "soft") if kind in files}
        row["peak_mb"] = peak
    row["versions"], row["date"] = versions(), datetime.date.today().isoformat()
    return row


def at_batch(files: Mapping[str, Path], pb: Pullback, x: torch.Tensor, budget: float) -> dict[str, Any]:
    """Ratios at one batch size, of two calls that take turns: no third session's memory and threads are in the way."""
    kinds = [kind for kind in files if kind != "forward"]
    found: dict[str, Any] = {"rounds": {}, "ratio": {}, "spread": {}}
    for kind in [*kinds, "eager"]:
        base = kinds[0] if kind == "eager" else "forward"
        calls = {base: runner(files[base], x.numpy())}
        calls[kind] = eager(pb, x) if kind == "eager" else runner(files[kind], x.numpy())
        times = alternate(calls, budget=budget / (len(kinds) + 1), least=LEAST)
        if "forward_ms" not in found:
            found["forward_ms"] = round(times["forward"].median * 1e3, 2)
        found["rounds"][kind] = len(times[kind].seconds)
        found["ratio"][kind] = round(times[kind].ratio(times[base]), 3)
        found["spread"][kind] = round(times[kind].spread(times[base]), 3)
    found["faster"] = found["ratio"].pop("eager")
    return found


def per_picture(file: Path, shape: Sequence[int]) -> dict[str, float]:
    """Milliseconds for one picture in batches of several sizes, in turn."""
    calls = {str(n): runner(file, torch.randn(n, *shape).clamp(-2, 2).numpy()) for n in PICTURES}
    times = alternate(calls, budget=0, least=LEAST)
    return {n: round(of.median * 1e3 / int(n), 2) for n, of in times.items()}


def show_profile(name: str, kind: str, batch: int, skip: Sequence[str]) -> str:
    """Where the time goes in one file of a network."""
    model, example = build(f"timm:{name}")
    x = torch.randn(batch, *example.shape[1:]).numpy()
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "model.onnx"
        feed: dict[str, Any] = {"input": x}
        if kind == "forward":
            plain_forward(model, example, file)
            (only,) = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"]).get_inputs()
            feed = {only.name: x}
        else:
            pb = fxpullback.compile(model, (example,), rules=SEMANTIC, program=PROGRAMS[kind], without=skip)
            to_onnx(pb, file, certify=False)
            feed["target"] = np.zeros(batch, np.int64)
        return f"{name}, {kind}, batch {batch}\n{told(file, feed)}"


def worth(name: str, batch: int, budget: float) -> str:
    """What leaving one rewrite out costs: rows of Markdown, soft without it as a ratio to soft with all of them."""
    model, example = build(f"timm:{name}")
    x = torch.randn(batch, *example.shape[1:]).numpy()
    whole = fxpullback.compile(model, (example,), rules=SEMANTIC)
    left = [rewrite.name for rewrite in REWRITES if rewrite.optional and whole.rewrites[rewrite.name]]
    with tempfile.TemporaryDirectory() as scratch:
        calls = {}
        for rewrite in ["", *left]:
            pb = fxpullback.compile(model, (example,), rules=SEMANTIC, without=[rewrite]) if rewrite else whole
            calls[rewrite] = runner(to_onnx(pb, Path(scratch) / f"{rewrite}.onnx", certify=False), x)
        times = alternate(calls, budget=budget)
    return "\n".join(
        f"| {name} | {batch} | {rewrite} | {whole.rewrites[rewrite]} | {times[rewrite].ratio(times['']):.2f} "
        f"| {times[rewrite].spread(times['']):.0%} |"
        for rewrite in left
    )


def line(row: dict[str, Any]) -> str:
    """A row as one line of text."""
    parts = [row["name"]]
    for batch, found in row["batches"].items():
        ratios = ", ".join(f"{kind} {value:.2f}" for kind, value in found["ratio"].items())
        parts.append(f"batch {batch}: forward {found['forward_ms']:.1f} ms, {ratios}, {found['faster']:.2f}x eager")
    return "; ".join(parts)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.speed", description=__doc__)
    parser.add_argument("--names", nargs="+", default=list(NETWORKS), help="timm names")
    parser.add_argument("--batch", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--programs", nargs="+", default=list(PROGRAMS), choices=list(PROGRAMS))
    parser.add_argument("--seconds", type=float, default=40.0, help="budget of a network at one batch size")
    parser.add_argument("--without", nargs="+", default=[], help="rewrites of the lowering to leave out")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--profile", nargs="?", const="soft", choices=["forward", *PROGRAMS])
    parser.add_argument("--rewrites", action="store_true", help="what each rewrite of the lowering is worth")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.profile:
        for name in given.names:
            print(show_profile(name, given.profile, max(given.batch), given.without))
        return
    if given.rewrites:
        for name in given.names:
            print(worth(name, max(given.batch), given.seconds), flush=True)
        return
    if given.here:
        (name,) = given.names
        row = measure(name, given.batch, given.seconds, given.without, given.programs)
        with given.results.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(line(row), flush=True)
        return
    for name in given.names:
        rest = [item for item in sys.argv[1:] if item not in given.names and item != "--names"]
        subprocess.run([sys.executable, "-m", "benchmarks.speed", "--here", "--names", name, *rest], check=False)


if __name__ == "__main__":
    main()
