"""Whole networks as files: the architectures that ship with onnx, and timm networks by both exporters of torch."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto, numpy_helper
from torch import nn

import fxpullback
from fxpullback.export import to_onnx
from fxpullback.export.certify.file import certify

LIGHT = (
    "bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet", "vgg19",
    "zfnet512",
)  # fmt: skip
"""Architectures of onnx.backend.test, whose files hold no weights but constants."""
TIMM: tuple[tuple[str, dict[str, Any]], ...] = (
    ("resnet10t", {}), ("mobilenetv3_small_050", {}), ("efficientnet_lite0", {}), ("convnext_zepto_rms", {}),
    ("vit_tiny_patch16_224", {"img_size": 64}), ("swin_tiny_patch4_window7_224", {}), ("densenet121", {}),
    ("regnetx_002", {}), ("ghostnet_050", {}), ("mixer_s32_224", {}), ("poolformer_s12", {}), ("repvgg_a0", {}),
    ("deit_tiny_patch16_224", {}), ("cait_xxs24_224", {}), ("edgenext_xx_small", {}), ("levit_128s", {}),
    ("mobilevit_xxs", {}), ("pit_ti_224", {}), ("resmlp_12_224", {}), ("fastvit_t8", {}),
)  # fmt: skip


@dataclass(frozen=True)
class File:
    """What became of one file.

    Attributes:
        name: of the network.
        source: what wrote the file.
        nodes: of the file.
        gates: of the ledger.
        logits: how far ONNX Runtime on the file is off, at most.
        module: how far the pullback is off the module's own; None where there is no module.
        passed: whether the certificate passed.
        reason: why not.
    """

    name: str
    source: str
    nodes: int = 0
    gates: int = 0
    logits: float | None = None
    module: float | None = None
    passed: bool = False
    reason: str = ""


def files() -> Iterator[File]:
    """Every file, measured."""
    for name in LIGHT:
        yield told(measured(name, "onnx.backend.test", partial(light, name)))
    for i, (name, options) in enumerate(TIMM):
        how = ("torch.onnx script", "torch.onnx dynamo")[i % 2]
        yield told(measured(name, how, partial(exported, name, options, how)))


def told(one: File) -> File:
    """The same, said on the terminal."""
    print(one.name, one.source, "ok" if one.passed else one.reason, one.logits, one.module, flush=True)
    return one


def measured(name: str, source: str, make: Callable[[Path], nn.Module | None]) -> File:
    """Write a file, import it, compile, write, certify."""
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        path = Path(folder) / f"{name}.onnx"
        try:
            module = make(path)
            graph = onnx.load(path).graph
            nodes, last = len(graph.node), graph.node[-1]
            pb = fxpullback.compile(path, output=last.input[0] if last.op_type == "Softmax" else None)
            made = File(name, source, nodes, pb.ledger.gates)
            written = to_onnx(pb, Path(folder) / "explained.onnx", certify=False)
            certificate = certify(pb, written)
            logits = max(c.measured for c in certificate.checks if c.name.startswith("original file"))
            failed = next((f"{c.name}: {c.measured:.1e}" for c in certificate.checks if not c.passed), "")
            error = None if module is None else _apart(pb, module)
        except Exception as broken:
            return File(name, source, reason=f"{type(broken).__name__}: {' '.join(str(broken).split())[:200]}")
    about = float(f"{logits:.2e}"), None if error is None else float(f"{error:.2e}")
    return File(name, source, made.nodes, made.gates, *about, not failed, failed)


def _apart(pb: Any, module: nn.Module) -> float:
    """How far a pullback is off that of the module, both calibrated alike."""
    x = torch.randn((2, *pb.example.shape[1:]), generator=torch.Generator().manual_seed(1))
    own, target = fxpullback.compile(module, x), torch.tensor([1, 2])
    wanted = own(x, target)[1]
    return float((pb(x, target)[1] - wanted).abs().max() / wanted.abs().max())


def exported(name: str, options: dict[str, Any], how: str, path: Path) -> nn.Module:
    """A timm network with random weights, exported."""
    import timm

    torch.manual_seed(0)
    model = timm.create_model(name, **options).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                nn.init.uniform_(module.weight, 0.8, 1.2)
                nn.init.normal_(module.bias, 0, 0.1)
    side = int(options.get("img_size") or model.default_cfg["input_size"][-1])  # type: ignore[index]
    x = torch.randn(2, 3, side, side)
    if how.endswith("dynamo"):
        torch.onnx.export(
            model, (x,), str(path), dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False,
            external_data=False,
        )  # fmt: skip
    else:
        torch.onnx.export(model, (x,), str(path), dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "batch"}})
    return model


def light(name: str, path: Path) -> None:
    """An architecture of onnx.backend.test, its weights drawn: normal, as large as a layer's fan-in asks for."""
    import onnx.backend.test

    folder = Path(onnx.backend.test.__file__).parent / "data" / "light"
    model = onnx.load(folder / f"light_{name}.onnx")
    _draw(model)
    onnx.save(model, path)


def _draw(model: ModelProto) -> None:
    shapes = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    drawn = np.random.default_rng(0)
    made: dict[str, Any] = {}
    for node in list(model.graph.node):
        if node.op_type == "ConstantOfShape" and node.input[0] in shapes:
            made[node.output[0]] = [int(n) for n in shapes[node.input[0]]]
            model.graph.node.remove(node)
    roles = _roles(model)
    for name, sizes in made.items():
        model.graph.initializer.append(numpy_helper.from_array(_weights(drawn, sizes, roles.get(name, "")), name))
    for tensor in model.graph.initializer:
        held = numpy_helper.to_array(tensor)
        if held.dtype == np.float32 and tensor.name not in made and held.size > 1 and np.ptp(held) == 0:
            tensor.CopyFrom(
                numpy_helper.from_array(_weights(drawn, held.shape, roles.get(tensor.name, "")), tensor.name)
            )


def _roles(model: ModelProto) -> dict[str, str]:
    """What a weight is, where it is one number for each channel: a factor, or something that is added."""
    names = {"BatchNormalization": ("", "scale", "bias", "bias", "scale"), "Mul": ("scale",) * 2, "Add": ("bias",) * 2}
    return {
        value: names[node.op_type][i]
        for node in model.graph.node
        if node.op_type in names
        for i, value in enumerate(node.input)
    }


def _weights(drawn: np.random.Generator, sizes: Any, role: str) -> np.ndarray[Any, Any]:
    if role == "scale":
        return np.asarray(drawn.uniform(0.7, 1.3, sizes), np.float32)
    if role == "bias":
        return np.asarray(drawn.standard_normal(sizes) * 0.1, np.float32)
    fan = int(np.prod(sizes[1:])) if len(sizes) > 1 else 100
    return np.asarray(drawn.standard_normal(sizes) * (2 / max(fan, 1)) ** 0.5, np.float32)
