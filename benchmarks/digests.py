"""Digests of what the compiler makes: whether a change to its code changed any graph or file, to the last bit.

    python -m benchmarks.digests               # compare with benchmarks/digests.json
    python -m benchmarks.digests --write       # record anew
    python -m benchmarks.digests resnet lstm   # some of the networks

Twelve networks of different kinds with fixed seeds, three programs, fp32 and fp16. A digest is of names, operators,
arguments, shapes and every byte of every constant. It depends on the versions of torch and timm, and on the processor
where a folded weight is rounded, so a comparison means something on one machine alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import timm
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

import fxpullback
from fxpullback import SEMANTIC, Ascent, Double, Soft
from fxpullback.export import to_onnx

RECORD = Path(__file__).parent / "digests.json"
PROGRAMS: dict[str, Soft | Double | Ascent] = {"soft": Soft(), "double": Double(2.0), "ascent": Ascent(2, 5.0)}


class Sequence(nn.Module):
    """An LSTM of two directions over a series, and a bounded head."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 8, batch_first=True, bidirectional=True)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(torch.tanh(self.norm(self.lstm(x)[0][:, -1])))
        return result


class Masked(nn.Module):
    """Attention written out under a mask that is passed in, RMS norm, SwiGLU."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(12, 36), nn.Linear(12, 12)
        self.norm, self.wide, self.narrow = nn.RMSNorm(12, eps=1e-5), nn.Linear(12, 32), nn.Linear(16, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        scores = (q @ k.transpose(-2, -1) * 0.3).masked_fill(~mask[:, None], -1e4)
        x = x + self.out(scores.softmax(-1) @ v)
        gate, value = self.wide(self.norm(x)).chunk(2, -1)
        result: Tensor = self.head((x + self.narrow(F.silu(gate) * value)).mean(1))
        return result


class Dense(nn.Module):
    """Concatenations behind each other, batch norms in front of their gates."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8 + 4 * i) for i in range(3))
        self.layers = nn.ModuleList(nn.Conv2d(8 + 4 * i, 4, 3, 1, 1, bias=False) for i in range(3))
        self.head = nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.stem(x)]
        for norm, layer in zip(self.norms, self.layers, strict=True):
            parts.append(layer(F.relu(norm(torch.cat(parts, 1)))))
        result: Tensor = self.head(F.avg_pool2d(torch.cat(parts, 1), 2).mean((2, 3)))
        return result


def _vgg() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, 1, 1), nn.ELU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(12, 12, 3, 2, 1), nn.PReLU(12),
        nn.Flatten(), nn.Linear(12 * 16, 24), nn.Hardtanh(), nn.Linear(24, 5),
    )  # fmt: skip


def _free() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.GroupNorm(2, 8), nn.SiLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, 1, 1),
        nn.Softplus(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip


def _timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=7, **options)


_VIT = {"img_size": 32, "patch_size": 8, "depth": 2}
_SWIN = {"img_size": 64, "window_size": 4, "embed_dim": 24, "depths": (1, 2), "num_heads": (2, 4)}
_PICTURE = ((2, 3, 64, 64),)

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[tuple[int, ...], ...], dict[str, Any]]] = {
    "resnet": (_timm("resnet18"), _PICTURE, {}),
    "mobilenetv3": (_timm("mobilenetv3_small_050"), _PICTURE, {}),
    "mobilenetv2": (_timm("mobilenetv2_035"), _PICTURE, {"target": "contrast"}),
    "convnext": (_timm("convnext_atto"), _PICTURE, {"target": "top1"}),
    "vit": (_timm("vit_tiny_patch16_224", **_VIT), ((2, 3, 32, 32),), {}),
    "swin": (_timm("swin_tiny_patch4_window7_224", **_SWIN), _PICTURE, {"target": "cotangent"}),
    "pvt": (_timm("pvt_v2_b0"), _PICTURE, {}),
    "vgg": (_vgg, ((2, 3, 32, 32),), {"rules": fxpullback.REFERENCE}),
    "dense": (Dense, ((2, 3, 16, 16),), {}),
    "lstm": (Sequence, ((2, 5, 6),), {}),
    "masked": (Masked, ((2, 6, 12), (2, 6)), {"keep_exact": ("silu",)}),
    "free": (_free, ((2, 3, 32, 32),), {"free_size": True}),
}


def network(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A network and its examples, the same on every run; norms have statistics of their own."""
    make, shapes, _ = NETWORKS[name]
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = make().eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                    if tensor is not None:
                        nn.init.uniform_(tensor, 0.5, 1.5)
        x, *masks = (torch.randn(shape) for shape in shapes)
    return model, (x, *(mask > -0.5 for mask in masks))


def _feed(digest: Any, *parts: Any) -> None:
    digest.update(repr(parts).encode())


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _value(val: Any) -> Any:
    """Shape and type of a fake value; of a symbolic size no name, which counts what was made before."""
    if isinstance(val, tuple | list):
        return [_value(v) for v in val]
    if isinstance(val, Tensor):
        return [n if isinstance(n, int) else "free" for n in val.shape], str(val.dtype)
    return type(val).__name__


def of_graph(gm: fx.GraphModule) -> str:
    """Digest of an fx graph."""
    digest = hashlib.sha256()
    for node in gm.graph.nodes:
        _feed(digest, node.name, node.op, str(node.target), str(node.args), str(node.kwargs))
        _feed(digest, _value(node.meta.get("val")))
        if node.op == "get_attr":
            digest.update(_bytes(getattr(gm, str(node.target))))
    return digest.hexdigest()[:16]


def of_file(path: Path) -> str:
    """Digest of the graph of an ONNX file: its nodes, its weights, its inputs and outputs."""
    digest = hashlib.sha256()
    graph = onnx.load(path).graph
    for part in (*graph.node, *graph.input, *graph.output, *sorted(graph.initializer, key=lambda t: t.name)):
        digest.update(part.SerializeToString(deterministic=True))
    return digest.hexdigest()[:16]


def of_ledger(ledger: Any) -> str:
    """Digest of what a ledger says of every operator, but for its reasons."""
    digest = hashlib.sha256()
    for row in ledger.rows:
        _feed(digest, row.node, row.operator, row.verdict, row.rule, row.temperature, row.pullback_nodes)
    return digest.hexdigest()[:16]


def digests(name: str, folder: Path) -> dict[str, str]:
    """All digests of one network."""
    found: dict[str, str] = {}
    for label, program in PROGRAMS.items():
        model, examples = network(name)
        pb = fxpullback.compile(model, examples, **{"rules": SEMANTIC, "program": program, **NETWORKS[name][2]})
        if label == "soft":
            stages = {"captured": pb.captured, "rewritten": pb.rewritten, "folded": pb.folded, "step": pb.step}
            found |= {stage: of_graph(gm) for stage, gm in stages.items()} | {"ledger": of_ledger(pb.ledger)}
        found[f"{label} graph"] = of_graph(pb.graph)
        for precision in ("fp32", "fp16"):
            path = to_onnx(pb, folder / f"{name}.onnx", precision=precision, certify=False)
            found[f"{label} {precision}"] = of_file(path)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Record digests, or compare with the record; returns how many networks differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NETWORKS)}; all by default")
    parser.add_argument("--write", action="store_true", help="record anew what is there now")
    given = parser.parse_args(arguments)
    record: dict[str, dict[str, str]] = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    different = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in given.names or NETWORKS:
            found = digests(name, Path(folder))
            wrong = [key for key in found if found[key] != record.get(name, {}).get(key)]
            different += bool(wrong)
            print(f"{name:14} {'as recorded' if not wrong else 'DIFFERS: ' + ', '.join(wrong)}", flush=True)
            record[name] = found
    if given.write:
        RECORD.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    return 0 if given.write else different


if __name__ == "__main__":
    sys.exit(main())
