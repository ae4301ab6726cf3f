"""Pictures in: files, safely read, to the graph's input. Pictures out: panels are in `panels.py`."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from fxpullback.contract.errors import ModelSourceError
from fxpullback.export.pictures.panels import panel
from fxpullback.export.pictures.preprocessing import Preprocessing

__all__ = ["MAX_PIXELS", "load_picture", "panel", "prepare", "read_picture"]

Array: TypeAlias = npt.NDArray[np.float32]

MAX_PIXELS = 80_000_000
MAX_ASPECT = 30
# Without EPS and others that Pillow hands to outside programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "MPO", "JPEG2000", "AVIF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif")
_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def load_picture(path: str | os.PathLike[str], preprocessing: Preprocessing | dict[str, Any]) -> Array:
    """A picture file as the input of a graph.

    Args:
        path: A picture in a common raster format.
        preprocessing: Size, interpolation and crop; as a dict, what a file's metadata holds.

    Returns:
        float32 [1, channels, height, width], pixels scaled to [-1, 1].

    Raises:
        ModelSourceError: No picture, a truncated one, one too large to be decoded safely, or of an absurd shape.
    """
    if not isinstance(preprocessing, Preprocessing):
        preprocessing = Preprocessing.from_json(preprocessing)
    return prepare(read_picture(path), preprocessing)


def read_picture(path: str | os.PathLike[str]) -> Image.Image:
    """A picture file as RGB, upright, with transparent parts on white.

    Raises:
        ModelSourceError: As `load_picture`.
    """
    path = Path(path)
    if not path.is_file():
        what = "this is a folder" if path.is_dir() else "there is no such file"
        raise ModelSourceError(f"{path}: {what}, and a picture is wanted.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on odd EXIF data and the like
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_formats()) as image:
                _check_size(path, image.size)
                return _rgb(ImageOps.exif_transpose(image))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ModelSourceError(
            f"{path}: the picture unpacks to far more pixels than {MAX_PIXELS // 1_000_000} million, as a "
            "decompression bomb does. It was not opened; scale it down in a program you trust it to."
        ) from error
    except UnidentifiedImageError as error:
        raise ModelSourceError(f"{path}: this is no picture that can be read (of {', '.join(FORMATS)}).") from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError) as error:
        raise ModelSourceError(f"{path}: the picture is damaged or cut short ({error}). Fetch it again.") from error


def prepare(image: Image.Image, preprocessing: Preprocessing) -> Array:
    """Resize, crop and scale an RGB picture.

    Returns:
        float32 [1, channels, height, width] in [-1, 1].
    """
    height, width = preprocessing.size
    share = preprocessing.resize / max(height, width)
    whole = (max(width, round(width * share)), max(height, round(height * share)))
    method = _RESAMPLING[preprocessing.interpolation]
    match preprocessing.crop_mode:
        case "squash":
            image = image.resize(whole, method)
        case "border":
            scale = min(whole[0] / image.width, whole[1] / image.height)
            image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), method)
            image = _framed(image, (width, height), preprocessing.mean)
        case _:
            image = image.resize(_covering(image.size, whole), method)
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    image = image.crop((left, top, left + width, top + height))
    pixels = np.asarray(image if preprocessing.channels == 3 else image.convert("L"), dtype=np.float32)
    planes = pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None]
    return np.ascontiguousarray(planes[None] / np.float32(127.5) - np.float32(1.0))


def _covering(size: tuple[int, int], whole: tuple[int, int]) -> tuple[int, int]:
    """The smallest size of the same proportions that covers `whole`; the longer side truncated, as torchvision does."""
    by_width = whole[0] * size[1] >= whole[1] * size[0]
    if by_width:
        return whole[0], max(whole[1], size[1] * whole[0] // size[0])
    return max(whole[0], size[0] * whole[1] // size[1]), whole[1]


def _framed(image: Image.Image, size: tuple[int, int], mean: tuple[float, ...] | None) -> Image.Image:
    """`image` in the middle of a canvas of the weights' mean colour, at least `size` large."""
    canvas = (max(image.width, size[0]), max(image.height, size[1]))
    red, green, blue = (round(255 * value) for value in mean or (0.5, 0.5, 0.5))
    framed = Image.new("RGB", canvas, (red, green, blue))
    framed.paste(image, ((canvas[0] - image.width) // 2, (canvas[1] - image.height) // 2))
    return framed


def _formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _check_size(path: Path, size: tuple[int, int]) -> None:
    """Refuse what would take absurd memory; `size` is known before anything is decoded."""
    width, height = size
    if width * height > MAX_PIXELS:
        raise ModelSourceError(
            f"{path}: {width} x {height} pixels are more than {MAX_PIXELS // 1_000_000} million, as a decompression "
            "bomb has. It was not opened; scale it down in a program you trust it to."
        )
    if min(size) < 1 or max(size) > MAX_ASPECT * min(size):
        raise ModelSourceError(
            f"{path}: {width} x {height} pixels: a strip like this leaves nothing to explain. Crop it first."
        )


def _rgb(image: Image.Image) -> Image.Image:
    """`image` as RGB: 16-bit grey scaled, transparent parts on white."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image, dtype=np.uint16) / 257).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode}, 32 bits each; save it with 8 bits per channel")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
