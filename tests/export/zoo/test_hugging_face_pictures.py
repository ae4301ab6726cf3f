"""`hf:FOLDER` of models of pictures: beside transformers with its own image processor, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from fxpullback.contract.errors import ModelSourceError
from fxpullback.export.pictures.load import prepare
from fxpullback.export.zoo.models import LoadedModel, load_model
from tests.export.cli.commands import run

SIZES: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 24, "image_size": 32,
    "patch_size": 8, "initializer_range": 0.3, "id2label": {0: "ant", 1: "bee", 2: "cat", 3: "dog"},
}  # fmt: skip
SMALL: dict[str, Any] = {"num_labels": 4, "hidden_sizes": [8, 16], "depths": [1, 1]}
Made = Callable[[], tuple[Any, Any]]


def square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def named(model: str, processor: str, settings: dict[str, Any], options: dict[str, Any]) -> tuple[Any, Any]:
    """A model and its image processor, by the names of their classes."""
    kind: Any = getattr(transformers, model)
    return kind(kind.config_class(**settings)), getattr(transformers, processor)(**options)


FOLDERS: dict[str, Made] = {
    "squashed": lambda: named("ViTForImageClassification", "ViTImageProcessor", SIZES, {"size": square(32)}),
    "cropped": lambda: named(
        "Dinov2ForImageClassification",
        "BitImageProcessor",
        SIZES,
        {"size": {"shortest_edge": 36}, "crop_size": square(32)},
    ),
    "a share of it": lambda: named(
        "ConvNextForImageClassification",
        "ConvNextImageProcessor",
        {**SMALL, "num_stages": 2, "initializer_range": 0.3, "layer_scale_init_value": 1.0},
        {"size": {"shortest_edge": 32}, "crop_pct": 8 / 9},
    ),
    "squashed, then cropped": lambda: named(
        "BeitForImageClassification",
        "EfficientNetImageProcessor",
        SIZES,
        {"size": square(36), "crop_size": square(32), "do_center_crop": True, "image_std": [0.2, 0.3, 0.4]}
        | {"rescale_factor": 1 / 127.5, "rescale_offset": True},
    ),
    "blue first": lambda: named(
        "ViTForImageClassification",
        "MobileViTImageProcessor",
        SIZES,
        {"size": {"shortest_edge": 36}, "crop_size": square(32)},
    ),
    "not normalised": lambda: named(
        "ViTForImageClassification", "ViTImageProcessor", SIZES, {"size": square(32), "do_normalize": False}
    ),
    "oblong": lambda: named(
        "ViTForImageClassification",
        "ViTImageProcessor",
        SIZES | {"image_size": [32, 48]},
        {"size": {"height": 32, "width": 48}, "resample": 3},
    ),
}


def saved(folder: Path, made: Made, **changes: Any) -> Path:
    torch.manual_seed(0)
    model, processor = made()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def loaded(folder: Path, **options: Any) -> LoadedModel:
    return load_model(f"hf:{folder}", **options)


def processor_of(folder: Path | str) -> Any:
    autos: Any = transformers.AutoImageProcessor
    return autos.from_pretrained(folder)


def picture(width: int, height: int) -> Image.Image:
    coarse = np.random.default_rng(3).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("name", FOLDERS)
def test_logits_are_those_of_transformers_with_its_own_processor(name: str, tmp_path: Path) -> None:
    saved(tmp_path, FOLDERS[name])
    found = loaded(tmp_path)
    assert isinstance(found.model, torch.nn.Module)
    assert found.preprocessing is not None
    assert found.explains == {"output": "logits"}
    autos: Any = transformers.AutoModelForImageClassification
    original = autos.from_pretrained(tmp_path).eval()
    process = processor_of(tmp_path)
    height, width = found.preprocessing.size
    for size in ((width, height), (90, 64)):
        given = picture(*size)
        with torch.no_grad():
            wanted = original(**process(given, return_tensors="pt")).logits
            logits = found.model(torch.from_numpy(prepare(given, found.preprocessing))).logits
        spread = float(wanted.max() - wanted.min())
        assert spread > 0.1
        assert float((logits - wanted).abs().max()) < 0.03 * spread


def test_pixels_are_normalised_to_the_digit(tmp_path: Path) -> None:
    found = loaded(saved(tmp_path, FOLDERS["squashed"]))
    given = picture(32, 32)  # nothing to resize
    process = processor_of(tmp_path)
    model: Any = found.model
    assert found.preprocessing is not None
    made = model.normalise(torch.from_numpy(prepare(given, found.preprocessing)))
    torch.testing.assert_close(made, process(given, return_tensors="pt")["pixel_values"], rtol=0, atol=1e-6)
    assert found.classes == ["ant", "bee", "cat", "dog"]
    assert found.notes == ()


def test_a_folder_becomes_a_file_and_a_picture_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "vit", FOLDERS["squashed"])
    picture(70, 50).save("meadow.png")
    printed, said = run("compile", "hf:vit", "-o", "vit.onnx")
    assert "certificate passed" in " ".join(printed.split())
    assert "vit.layers.1, network.vit.layers.2" in said  # the automatic taps: inner blocks
    printed, _ = run("explain", "vit.onnx", "meadow.png", "--target", "bee", "-o", "out.png")
    process = processor_of("vit")
    autos: Any = transformers.AutoModelForImageClassification
    with torch.no_grad():
        wanted = autos.from_pretrained("vit").eval()(**process(picture(70, 50), return_tensors="pt")).logits
    assert printed.startswith("bee: logit ")
    assert abs(float(printed.split()[2]) - float(wanted[0, 1])) < 0.02
    _, said = run("explain", "vit.onnx", "--text", "a bee", code=1)
    assert "takes no words" in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"do_resize": False}, "resizes to .* a file takes pictures of one size"),
        ({"size": {"longest_edge": 32}}, "fails on a picture|takes pictures of one size"),
        ({"do_normalize": False, "do_rescale": False, "image_mean": None}, ""),
        ({"image_std": [-0.5, 0.5, 0.5]}, "does more to colours than to scale and shift"),
        ({"size": {"height": 16, "width": 16}}, r"does not run on pixel_values \[2, 3, 16, 16\]"),
    ],
)
def test_processors_that_do_something_else(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    saved(tmp_path, FOLDERS["squashed"], **changes)
    if not message:  # whole numbers from 0 to 255 are taken
        found = loaded(tmp_path)
        assert found.preprocessing is not None
        assert found.preprocessing.std == pytest.approx((1 / 255,) * 3, abs=1e-6)
        return
    with pytest.raises(ModelSourceError, match=message):
        loaded(tmp_path)


def test_a_processor_that_keeps_the_proportions_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path, FOLDERS["squashed"])
    transformers.PixtralImageProcessor(size={"longest_edge": 32}, patch_size=square(8)).save_pretrained(folder)
    with pytest.raises(ModelSourceError, match=r"PixtralImageProcessor .*Compile it as package\.module:factory"):
        loaded(folder)


def test_what_is_no_classifier_of_pictures(tmp_path: Path) -> None:
    folder = saved(tmp_path, FOLDERS["squashed"])
    with pytest.raises(ModelSourceError, match="--length is for models of text"):
        loaded(folder, length=4)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelSourceError, match=r"no image processor .*image_processor\.save_pretrained"):
        loaded(folder)
    kind: Any = transformers.ViTModel
    kind(transformers.ViTConfig(**SIZES)).save_pretrained(folder)
    with pytest.raises(ModelSourceError, match=r"ViTModel has no head.*ViTForImageClassification"):
        loaded(folder)
