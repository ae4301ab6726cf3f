"""How a picture becomes an input: sizes, interpolation, normalisation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fxpullback.contract.errors import ModelSourceError

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
CROP_MODES = ("center", "squash", "border")


@dataclass(frozen=True)
class Preprocessing:
    """From a picture file to the graph's `input`.

    Attributes:
        size: (height, width) of the input.
        resize: Side in pixels a picture is resized to before the crop: the short side (crop mode `center`), both sides
            (`squash`), or the long side (`border`).
        interpolation: `nearest`, `bilinear`, `bicubic` or `lanczos`.
        crop_mode: `center`, `squash` or `border`.
        channels: 3 for RGB, 1 for grey.
        mean: Mean per channel of the weights, in units of [0, 1]; None for a model that takes pixels in [-1, 1] itself.
            It is in the graph already: a picture is only scaled to `range`.
        std: Standard deviation, likewise.
        range: Smallest and largest value of a pixel in the input.
    """

    size: tuple[int, int]
    resize: int
    interpolation: str = "bicubic"
    crop_mode: str = "center"
    channels: int = 3
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    range: tuple[float, float] = (-1.0, 1.0)

    @classmethod
    def plain(cls, shape: Sequence[int]) -> Preprocessing:
        """For a model of which the input shape (channels, height, width) alone is known: resize and crop."""
        channels, height, width = shape
        return cls((height, width), max(height, width), channels=channels)

    @classmethod
    def cropped(cls, size: tuple[int, int], crop_pct: float, **other: Any) -> Preprocessing:
        """For a network that sees the share `crop_pct` of a picture's short side."""
        # Rounded before the floor: 224 / (224 / 232) must be 232, not 231.
        return cls(size, math.floor(round(max(size) / crop_pct, 6)), **other)

    def to_json(self) -> dict[str, Any]:
        """As it is stored in the file."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Preprocessing:
        """Read what `to_json` wrote.

        Raises:
            ModelSourceError: A field is absent or holds nonsense.
        """
        try:
            height, width = (int(side) for side in data["size"])
            found = cls(
                (height, width),
                int(data.get("resize", max(height, width))),
                str(data.get("interpolation", "bicubic")),
                str(data.get("crop_mode", "center")),
                int(data.get("channels", 3)),
                _floats(data.get("mean")),
                _floats(data.get("std")),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelSourceError(f"preprocessing: {error!r} in {dict(data)}. Compile the model again.") from error
        if (
            found.interpolation not in INTERPOLATIONS
            or found.crop_mode not in CROP_MODES
            or found.channels not in (1, 3)
        ):
            raise ModelSourceError(
                f"preprocessing: interpolation {found.interpolation!r} (of {', '.join(INTERPOLATIONS)}), crop mode "
                f"{found.crop_mode!r} (of {', '.join(CROP_MODES)}), {found.channels} channels (1 or 3)."
            )
        return found


def _floats(values: Sequence[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(float(value) for value in values)
