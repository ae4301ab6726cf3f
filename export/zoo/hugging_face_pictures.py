"""Models of pictures from a folder of transformers, and how its image processor makes a picture an input.

What the processor does to sizes is read off its settings, what it does to pixels is measured on plain colours; both are
then compared with it on drawn pictures, so that a processor which does anything else is refused and not half followed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from fxpullback.contract.errors import ModelSourceError
from fxpullback.export.pictures.load import prepare
from fxpullback.export.pictures.preprocessing import Preprocessing
from fxpullback.export.zoo.hubs import Source
from fxpullback.export.zoo.hugging_face_folder import check_head, classes_of, logits_of, outputs, quiet

_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_ROUNDED = 0.01
"""What rounding to 8 bits, and another filter on soft colours, may change of a pixel, in units of [0, 1]."""
_ADVICE = "Compile it as package.module:factory, with --size, --mean and --std, and pass pixels of your own to Session."


def of_pictures(spec: str, folder: Path, model: Any, transformers: Any) -> Source:
    """The model of a folder, with what its image processor does.

    Raises:
        ModelSourceError: The model has no head, or the processor is absent or does something that is not known here.
    """
    check_head(spec, type(model), "ForImageClassification")
    preprocessing, is_reversed = preprocessing_of(spec, folder, transformers)
    if is_reversed:
        model = Reversed(model)
    shape = (preprocessing.channels, *preprocessing.size)
    logits = logits_of(outputs(spec, model, {"pixel_values": torch.zeros(2, *shape)}, _ADVICE))
    return Source(
        model,
        shape,
        preprocessing,
        classes=classes_of(model, logits, 1),
        explains={} if logits is None else {"output": "logits"},
    )


class Reversed(nn.Module):
    """A model that takes blue, green and red, as one of red, green and blue."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network, self.config = network, network.config

    def forward(self, pixel_values: Tensor) -> Any:
        """float32 [batch, 3, height, width] to whatever the model returns."""
        return self.network(pixel_values=pixel_values.flip(1))


def preprocessing_of(spec: str, folder: Path, transformers: Any) -> tuple[Preprocessing, bool]:
    """What the image processor of a folder does, with the mean and standard deviation that belong in front.

    Returns:
        The same, and whether the processor hands the colours on in reverse.

    Raises:
        ModelSourceError: There is none, or it does something that is not known here.
    """
    with quiet(transformers):
        processor = _processor(spec, folder, transformers)

        def run(picture: Image.Image) -> npt.NDArray[Any]:
            return np.asarray(processor(picture, return_tensors="np")["pixel_values"][0], dtype=np.float64)

        try:
            values = {colour: run(Image.new("RGB", (80, 80), colour)) for colour in _COLOURS}
        except Exception as error:
            raise ModelSourceError(
                f"{spec}: {type(processor).__name__} of the folder fails on a picture: {type(error).__name__}: "
                f"{' '.join(str(error).split())[:240]}. {_ADVICE}"
            ) from error
        name = type(processor).__name__
        is_reversed = _is_reversed(values)
        if is_reversed:
            values = {colour: value[::-1] for colour, value in values.items()}
        mean, std = _normalisation(spec, name, values)
        found = replace(_sizes(spec, processor, values[_BLACK].shape), mean=mean, std=std)
        _check_alike(spec, name, found, lambda picture: run(picture)[:: -1 if is_reversed else 1])
    return found, is_reversed


def _processor(spec: str, folder: Path, transformers: Any) -> Any:
    try:
        return transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise ModelSourceError(
            f"{spec}: no image processor (preprocessor_config.json) can be loaded from the folder: "
            f"{type(error).__name__}: {' '.join(str(error).split())[:200]} Save it there, from where the model was "
            f"trained: image_processor.save_pretrained({str(folder)!r})."
        ) from error


_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)
_COLOURS = (_BLACK, _WHITE, (255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128))


def _is_reversed(values: Mapping[tuple[int, int, int], npt.NDArray[Any]]) -> bool:
    """Whether red comes out as the last of three channels."""
    red = values[(255, 0, 0)] - values[_BLACK]
    return red.ndim == 3 and len(red) == 3 and int(np.abs(red).mean((1, 2)).argmax()) == 2


def _normalisation(
    spec: str, name: str, values: Mapping[tuple[int, int, int], npt.NDArray[Any]]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the channels in units of [0, 1], of what the processor makes of plain colours."""
    if any(value.ndim != 3 or len(value) != 3 for value in values.values()):
        raise ModelSourceError(
            f"{spec}: {name} makes {list(values[_BLACK].shape)} of a picture, where [3, height, width] is wanted. "
            f"{_ADVICE}"
        )
    middle = {colour: value[:, value.shape[1] // 2, value.shape[2] // 2] for colour, value in values.items()}
    low, span = middle[_BLACK], middle[_WHITE] - middle[_BLACK]
    steps = np.stack([middle[colour] - low for colour in _COLOURS[2:5]], 1)
    apart = np.allclose(steps, np.diag(span), atol=1e-4 * float(np.abs(span).max()))
    straight = np.allclose(middle[_COLOURS[5]], low + span * 128 / 255, atol=1e-4 * float(np.abs(span).max()))
    if not (apart and straight and (span > 0).all()):
        raise ModelSourceError(
            f"{spec}: {name} does more to colours than to scale and shift each of red, green and blue: red becomes "
            f"{np.round(steps[:, 0], 3).tolist()} above black. {_ADVICE}"
        )
    return tuple(round(float(v), 6) for v in -low / span), tuple(round(float(v), 6) for v in 1 / span)


def _sizes(spec: str, processor: Any, shape: tuple[int, ...]) -> Preprocessing:
    """What is resized and cropped, by the settings of a processor that makes pictures of this shape."""
    _, height, width = shape
    size = {key: side for key, side in dict(getattr(processor, "size", None) or {}).items() if side}
    method = _RESAMPLING.get(int(getattr(processor, "resample", None) or 0))
    crops = bool(getattr(processor, "do_center_crop", False))
    share = getattr(processor, "crop_pct", None)
    if not getattr(processor, "do_resize", False) or method is None or set(size) not in _SIZES:
        raise ModelSourceError(
            f"{spec}: {type(processor).__name__} resizes to {size or 'nothing'}, and a file takes pictures of one "
            f"size: shortest_edge, or height and width, in preprocessor_config.json. {_ADVICE}"
        )
    edge = size.get("shortest_edge")
    if edge is None:
        return Preprocessing((height, width), max(size["height"], size["width"]), method, "squash")
    if share:  # as ConvNeXT has it: large pictures are squashed, small ones cropped
        whole = edge if edge >= 384 else int(edge / share)
        return Preprocessing((height, width), whole, method, "squash" if edge >= 384 else "center")
    if not crops:
        raise ModelSourceError(
            f"{spec}: {type(processor).__name__} leaves pictures as wide as they are, and a file takes one size. Set "
            f"do_center_crop and crop_size in preprocessor_config.json. {_ADVICE}"
        )
    return Preprocessing((height, width), edge, method, "center")


_SIZES = ({"shortest_edge"}, {"height", "width"})


def _check_alike(spec: str, name: str, found: Preprocessing, run: Any) -> None:
    """Refuse a processor that makes something else of drawn pictures."""
    assert found.mean is not None
    assert found.std is not None
    mean, std = (np.array(values)[:, None, None] for values in (found.mean, found.std))
    for seed, size in enumerate(((90, 64), (300, 431))):
        picture = _drawn(size, seed)
        own = (prepare(picture, found)[0].astype(np.float64) + 1) / 2
        off = np.abs(run(picture) * std + mean - own)
        pixel = [np.abs(np.diff(own, axis=axis)) for axis in (1, 2)]  # a crop may be off by half of one
        worst, average = (max(float(of(step)) for step in pixel) + _ROUNDED for of in (np.max, np.mean))
        if float(off.max()) > worst or float(off.mean()) > average:
            raise ModelSourceError(
                f"{spec}: {name} makes something else of a picture of {size[0]}x{size[1]} than its settings say "
                f"({found.crop_mode}, resized to {found.resize}, {found.size[0]}x{found.size[1]}): off by "
                f"{float(off.max()):.2g} of the range of a pixel. {_ADVICE}"
            )


def _drawn(size: tuple[int, int], seed: int) -> Image.Image:
    """Soft colours, so that where they lie counts and how they are interpolated hardly does."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
