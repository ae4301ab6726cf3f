"""Models by name: what is built, what goes in front, and what bad names, weights and options get."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fxpullback.contract.errors import ModelSourceError
from fxpullback.export.pictures.preprocessing import Preprocessing
from fxpullback.export.zoo.models import load_model, read_classes
from fxpullback.export.zoo.normalise import Normalise
from tests.export.zoo.tiny import FACTORY, Tiny

NAME = "test_resnet"  # timm's own test network: 0.5 million parameters, 160 pixels
SPEC = f"timm:{NAME}"


def not_a_module() -> int:
    return 3


def broken() -> nn.Module:
    raise ValueError("the dog ate it")


def run(model: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        y: Tensor = model(x)
    return y


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(NAME).eval()


@pytest.fixture(scope="module")
def weights(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    save_file(network.state_dict(), path)
    return path


def test_timm_takes_pixels_in_minus_one_to_one(network: nn.Module, weights: Path) -> None:
    loaded = load_model(SPEC, weights=weights)
    cfg: Any = network.pretrained_cfg
    assert loaded.preprocessing is not None
    assert loaded.preprocessing.mean == tuple(cfg["mean"])
    assert loaded.preprocessing.size == tuple(cfg["input_size"][1:])
    mean, std = (torch.tensor(cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    want = run(network, ((loaded.example + 1) / 2 - mean) / std)
    torch.testing.assert_close(run(loaded.model, loaded.example), want, rtol=1e-5, atol=1e-5)
    assert loaded.classes is not None
    assert loaded.classes[340] == "zebra"
    assert loaded.notes == ()


def test_torchvision() -> None:
    loaded = load_model("torchvision:squeezenet1_1")
    assert loaded.preprocessing == Preprocessing(
        (224, 224), 256, "bilinear", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    )
    assert loaded.classes is not None
    assert loaded.classes[:2] == ["tench", "goldfish"]
    assert "weights are random" in loaded.notes[0]
    assert isinstance(loaded.model, nn.Module)
    assert not loaded.model.training


@pytest.mark.parametrize(
    ("spec", "name", "options", "half"),
    [
        ("timm:vit_tiny_patch16_224", "vit_tiny", {}, False),
        ("timm:mobilenetv2_100", "mobilenetv2", {"pad_type": "same"}, True),
        ("torchvision:squeezenet1_0", "squeezenet1_0", {}, False),
    ],
)
def test_real_weights(zoo: ModuleType, spec: str, name: str, options: dict[str, object], half: bool) -> None:
    norm: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.5,) * 3} if half else {}
    loaded = load_model(spec, weights=zoo.HERE / "weights" / f"{name}.safetensors", options=options, **norm)
    x = loaded.example
    torch.testing.assert_close(run(loaded.model, x), run(zoo.load(name).model, x), rtol=1e-4, atol=1e-4)


def test_pretrained_takes_the_road_of_timm(network: nn.Module, weights: Path) -> None:
    overlay = {"pretrained_cfg_overlay": {"file": str(weights)}}
    loaded = load_model(SPEC, pretrained=True, options=overlay)
    same = load_model(SPEC, weights=weights)
    torch.testing.assert_close(run(loaded.model, loaded.example), run(same.model, same.example))
    assert loaded.notes == ()


@pytest.mark.parametrize("kind", ["timm", "torchvision"])
def test_pretrained_out_of_reach(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    from torchvision import models

    def unreachable(*args: object, **kwargs: object) -> nn.Module:
        raise OSError("Name or service not known")

    monkeypatch.setattr(timm, "create_model", unreachable)
    monkeypatch.setattr(models, "get_model", unreachable)
    with pytest.raises(
        ModelSourceError, match=r"Name or service not known.*pass --weights FILE instead of --pretrained"
    ):
        load_model(f"{kind}:resnet50", pretrained=True)


def test_size_and_options() -> None:
    loaded = load_model(SPEC, size=96, options={"num_classes": 7})
    assert loaded.example.shape == (2, 3, 96, 96)
    assert loaded.classes is None
    assert loaded.preprocessing is not None
    assert loaded.preprocessing.size == (96, 96)
    assert run(loaded.model, loaded.example).shape == (2, 7)


def test_fixed_size_networks_are_resized() -> None:
    loaded = load_model("timm:test_vit", size=96)
    assert run(loaded.model, loaded.example[:1]).shape == (1, 1000)


def test_factory() -> None:
    loaded = load_model(FACTORY, size=8, options={"classes": 6})
    assert isinstance(loaded.model, Tiny)
    assert not loaded.model.training
    assert loaded.preprocessing == Preprocessing((8, 8), 8)
    assert loaded.notes == ("the model was in training mode and was switched to eval mode",)
    raw = load_model(FACTORY, input_shape=(5, 8, 8), options={"channels": 5})
    assert raw.example.shape == (2, 5, 8, 8)
    assert raw.preprocessing is None
    grey = load_model(FACTORY, size=(1, 8, 8), options={"channels": 1})
    assert grey.example.shape == (2, 1, 8, 8)
    normalised = load_model(FACTORY, size=8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    assert isinstance(normalised.model, nn.Sequential)


def test_factory_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_net.py").write_text(
        "from torch import nn\nmake = lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 2))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(__import__("sys").path))
    assert load_model("my_net:make", size=8).name == "my_net:make"


def test_exported_program(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pt2"
    batch = torch.export.Dim("batch")
    torch.export.save(torch.export.export(Tiny().eval(), (torch.rand(2, 3, 8, 8),), dynamic_shapes=({0: batch},)), path)
    loaded = load_model(str(path))
    assert loaded.example.shape == (2, 3, 8, 8)
    with pytest.raises(ModelSourceError, match="brings its own weights"):
        load_model(str(path), pretrained=True)
    with pytest.raises(ModelSourceError, match=r"takes \[3, 8, 8\] per sample"):
        load_model(str(path), size=16)


def test_normalise() -> None:
    x = torch.rand(2, 3, 4, 4, dtype=torch.float64) * 2 - 1
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    want = torch.stack([((x[:, c] + 1) / 2 - mean[c]) / std[c] for c in range(3)], 1)
    torch.testing.assert_close(Normalise(mean, std)(x), want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("timm:rsnet50", r"timm has no network of this name. Did you mean resnet50"),
        ("timm:vit_tiny", r"Did you mean vit_tiny_patch16_224"),
        ("torchvision:resnet_50", r"torchvision has no network of this name. Did you mean .*resnet50"),
        ("timm:qqqqqq", r"timm\.list_models\(\) lists them"),
        ("resnet50", r"'resnet50' names no model: timm:NAME.*timm:resnet50 or torchvision:resnet50, perhaps"),
        ("net.onnx", "no file net.onnx"),
        ("net.safetensors", "weights alone are no model"),
        ("no_such_module:make", "No module named 'no_such_module'"),
        (f"{__name__}:nothing", "has no nothing"),
        (f"{__name__}:not_a_module", r"a torch\.nn\.Module is wanted from the factory, and it returned int"),
        (f"{__name__}:broken", "the factory failed: ValueError: the dog ate it"),
        ("absent.pt2", r"absent\.pt2: there is no such file"),
    ],
)
def test_bad_spec(spec: str, words: str) -> None:
    with pytest.raises(ModelSourceError, match=words):
        load_model(spec)


@pytest.mark.parametrize(
    ("spec", "arguments", "words"),
    [
        (SPEC, {"options": {"bogus": 1}}, r"does not take these options.*bogus.*--model-option"),
        (SPEC, {"options": {"in_chans": 1}}, "must take 3 channels"),
        (SPEC, {"size": (1, 96, 96)}, "must take 3 channels"),
        (SPEC, {"size": -4}, "SIDE, HEIGHTxWIDTH"),
        (SPEC, {"weights": Path("w.pt"), "pretrained": True}, "exclude each other"),
        (SPEC, {"mean": (0.5, 0.5, 0.5)}, "belong together"),
        (SPEC, {"mean": (0.5,), "std": (0.5,)}, "3 numbers each"),
        (SPEC, {"weights": Path("absent.safetensors")}, r"absent\.safetensors: there is no such weights file"),
        (FACTORY, {"size": 9}, r"does not run on an input of shape \[1, 3, 9, 9\].*--size"),
        (FACTORY, {"size": 8, "input_shape": (3, 8, 8)}, "--size and --input-shape exclude each other"),
        (FACTORY, {"input_shape": (3, 0)}, "the extents of one sample are wanted"),
        (FACTORY, {"input_shape": (3, 8)}, r"does not run on an input of shape \[1, 3, 8\]"),
        (SPEC, {"input_shape": (2, 9)}, "it takes pictures; pass --size"),
        (FACTORY, {"pretrained": True}, "--pretrained is for timm and torchvision"),
        (FACTORY, {"size": 8, "options": {"klasses": 2}}, "the factory failed: TypeError.*klasses"),
        ("timm:test_vit", {"size": 3}, "size 3x3 does not suit|does not run"),
    ],
)
def test_bad_arguments(spec: str, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelSourceError, match=words):
        load_model(spec, **arguments)


def test_class_names(tmp_path: Path) -> None:
    lines, listed = tmp_path / "names.txt", tmp_path / "names.json"
    lines.write_text("ant\nbee\ncat\ndog\n")
    listed.write_text(json.dumps(["ant", "bee", "cat", "dog"]))
    assert read_classes(lines) == read_classes(listed) == ["ant", "bee", "cat", "dog"]
    assert load_model(FACTORY, size=8, classes=lines).classes == ["ant", "bee", "cat", "dog"]
    with pytest.raises(ModelSourceError, match="4 names for a model with 6 classes"):
        load_model(FACTORY, size=8, classes=lines, options={"classes": 6})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"ant\n\nbee\n", "class 2 has no name"),
        (b"", "class 1 has no name"),
        (b"[1, 2]", "JSON list of names"),
        (b"[", "not valid JSON"),
        (b"\xff\xfe\x00\xd8", "cannot be read"),
    ],
)
def test_bad_class_names(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    with pytest.raises(ModelSourceError, match=words):
        read_classes(path)
