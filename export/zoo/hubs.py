"""Networks from timm and torchvision, with the normalisation and class names of their weights."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.export import ExportedProgram

from fxpullback.contract.errors import ModelSourceError
from fxpullback.contract.text import Text
from fxpullback.export.pictures.preprocessing import INTERPOLATIONS, Preprocessing

RANDOM = "the weights are random: neither --weights nor --pretrained was given"
_IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@dataclass(frozen=True)
class Source:
    """A network as it was built, before weights from a file go in.

    Attributes:
        model: The network itself, without normalisation.
        shape: (channels, height, width) of one input.
        preprocessing: With the mean and std that belong in front; None when the input is no picture.
        classes: Class names of the published weights, or None.
        notes: What the user should be told.
        after_weights: What is left to do once weights are in.
        examples: Example inputs, the explained one first; None where the shape says all there is to say.
        names: Names of the examples, where they are passed by name.
        text: How a text becomes an input; None for a model that takes something else.
        explains: What is explained unless other is asked for: `output`, `positions`, `explain`, `at` of `compile`.
        sound: How a sound becomes an input; None for a model that takes something else.
    """

    model: nn.Module | ExportedProgram
    shape: tuple[int, ...]
    preprocessing: Preprocessing | None
    classes: list[str] | None = None
    notes: tuple[str, ...] = ()
    after_weights: Callable[[], None] | None = None
    examples: tuple[Tensor, ...] | None = None
    names: tuple[str, ...] = ()
    text: Text | None = None
    explains: Mapping[str, Any] = field(default_factory=dict)
    sound: Mapping[str, Any] | None = None


def from_timm(
    name: str, shape: tuple[int, ...], weights: Path | None, pretrained: bool, options: dict[str, Any]
) -> Source:
    """A timm network, at the size asked for.

    Raises:
        ModelSourceError: No such network, options it does not take, or weights that cannot be fetched.
    """
    import timm
    from timm.data import config, imagenet_info

    if not timm.is_model(name):
        raise ModelSourceError(_unknown("timm", name, name.split(".")[0], timm.list_models()))
    spec = f"timm:{name}"
    model: nn.Module = _build(
        spec, lambda: timm.create_model(name, pretrained=pretrained, **options), pretrained, options
    )
    resolve: Any = config.resolve_model_data_config  # untyped in timm
    found = resolve(model)
    channels, height, width = found["input_size"]
    _check_rgb(spec, options.get("in_chans", channels), shape)
    after: Callable[[], None] | None = None
    if shape and shape[-2:] != (height, width):
        height, width = shape[-2:]
        resize = getattr(model, "set_input_size", None)
        after = None if resize is None else lambda: _set_size(spec, resize, (height, width))
    interpolation = found["interpolation"] if found["interpolation"] in INTERPOLATIONS else "bicubic"
    pictures = Preprocessing.cropped(
        (height, width),
        found["crop_pct"],
        interpolation=interpolation,
        crop_mode=found.get("crop_mode") or "center",
        mean=tuple(found["mean"]),
        std=tuple(found["std"]),
    )
    subset = imagenet_info.infer_imagenet_subset(model)
    info: Any = None if subset is None else imagenet_info.ImageNetInfo(subset)
    classes = None if info is None else [info.index_to_description(index) for index in range(info.num_classes())]
    notes = () if pretrained or weights is not None else (RANDOM,)
    return Source(model, (3, height, width), pictures, classes, notes, after)


def from_torchvision(
    name: str, shape: tuple[int, ...], weights: Path | None, pretrained: bool, options: dict[str, Any]
) -> Source:
    """A torchvision classifier, at the size asked for.

    Raises:
        ModelSourceError: No such network, options it does not take, or weights that cannot be fetched.
    """
    from torchvision import models

    if name not in models.list_models(module=models):
        raise ModelSourceError(_unknown("torchvision", name, name, models.list_models(module=models)))
    spec = f"torchvision:{name}"
    published = models.get_model_weights(name).DEFAULT
    if name in ("googlenet", "inception_v3"):
        if not pretrained:
            options.setdefault("init_weights", weights is None)
        if (
            weights is not None
        ):  # no tensor of the file says so: their weights expect it, and torchvision sets it for its own
            options.setdefault("transform_input", True)
    if shape and name.startswith("vit_"):
        options.setdefault("image_size", shape[-1])
    choice = "DEFAULT" if pretrained else None
    model: nn.Module = _build(spec, lambda: models.get_model(name, weights=choice, **options), pretrained, options)
    transforms = published.transforms()
    side = transforms.crop_size[0]
    height, width = shape[-2:] if shape else (side, side)
    _check_rgb(spec, 3, shape)
    pictures = Preprocessing.cropped(
        (height, width),
        side / transforms.resize_size[0],
        interpolation=transforms.interpolation.value,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )
    notes = () if pretrained or weights is not None else (RANDOM,)
    return Source(model, (3, height, width), pictures, list(published.meta["categories"]), notes)


def _build(spec: str, make: Callable[[], nn.Module], pretrained: bool, options: dict[str, Any]) -> nn.Module:
    """Call `make`, and put what it raises in plain words."""
    try:
        return make()
    except TypeError as error:
        raise ModelSourceError(
            f"{spec}: the network does not take these options: {error}. Check --model-option ({_shown(options)})."
        ) from error
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        if pretrained:
            raise ModelSourceError(
                f"{spec}: the pretrained weights could not be had: {type(error).__name__}: {reason} Where the hub "
                "cannot be reached, fetch the weights on another one and pass --weights FILE instead of --pretrained."
            ) from error
        raise ModelSourceError(f"{spec}: the network cannot be built: {type(error).__name__}: {reason}") from error


def _set_size(spec: str, resize: Callable[..., object], size: tuple[int, int]) -> None:
    try:
        resize(img_size=size)
    except Exception as error:
        raise ModelSourceError(f"{spec}: size {size[0]}x{size[1]} does not suit the network: {error}") from error


def _check_rgb(spec: str, channels: int, shape: tuple[int, ...]) -> None:
    if channels != 3 or (len(shape) == 3 and shape[0] != 3):
        raise ModelSourceError(
            f"{spec}: RGB pictures are put in, so the network must take 3 channels. For other inputs write a factory "
            "(package.module:factory) that returns the network."
        )


def _unknown(kind: str, name: str, stem: str, known: Iterable[str]) -> str:
    """Says that a name is unknown, with those that look like it."""
    names = list(known)
    near = [item for item in names if item.startswith(stem.lower())]
    near = (near or difflib.get_close_matches(stem, names, n=5, cutoff=0.6))[:5]
    hint = f" Did you mean {', '.join(near)}?" if near else f" {kind}.list_models() lists them."
    return f"{kind}:{name}: {kind} has no network of this name.{hint}"


def _shown(options: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in options.items()) or "none given"
