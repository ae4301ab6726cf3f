"""Pictures: read as the networks expect them, refused where they should be, and drawn so that they can be read."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from fxpullback.contract.errors import ModelSourceError
from fxpullback.export.pictures import maps, panels
from fxpullback.export.pictures.load import load_picture, panel, prepare, read_picture
from fxpullback.export.pictures.preprocessing import Preprocessing
from fxpullback.export.pictures.smooth import smoothed

PLAIN = Preprocessing((8, 8), 8)


def image(width: int = 8, height: int = 8, mode: str = "RGB") -> Image.Image:
    shape = (height, width, len(mode)) if len(mode) > 1 else (height, width)
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), mode=None)


def test_pixels_are_scaled_to_minus_one_to_one(tmp_path: Path) -> None:
    source = image()
    source.save(tmp_path / "a.png")
    x = load_picture(tmp_path / "a.png", PLAIN)
    assert x.dtype == np.float32
    assert x.shape == (1, 3, 8, 8)
    np.testing.assert_allclose(x[0], np.asarray(source).transpose(2, 0, 1) / 127.5 - 1, atol=1e-6)
    assert load_picture(tmp_path / "a.png", PLAIN.to_json()).tolist() == x.tolist()


@pytest.mark.parametrize(("width", "height"), [(300, 200), (200, 300), (64, 64), (33, 500)])
@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_sizes(width: int, height: int, crop_mode: str) -> None:
    for size in ((32, 32), (24, 48)):
        x = prepare(image(width, height), Preprocessing(size, 50, crop_mode=crop_mode))
        assert x.shape == (1, 3, *size)
        assert np.abs(x).max() <= 1


def test_agrees_with_timm() -> None:
    from timm.data.transforms_factory import create_transform

    source = image(300, 200)
    for interpolation in ("bilinear", "bicubic"):
        transform = create_transform(
            (3, 64, 64), crop_pct=0.875, interpolation=interpolation, mean=(0.5,) * 3, std=(0.5,) * 3
        )
        want = torch.as_tensor(transform(source)).numpy()
        got = prepare(source, Preprocessing.cropped((64, 64), 0.875, interpolation=interpolation))[0]
        np.testing.assert_allclose(got, want, atol=1.01 / 127.5)


def test_sides_before_the_crop() -> None:
    assert Preprocessing.cropped((224, 224), 224 / 232).resize == 232
    assert Preprocessing.cropped((224, 224), 0.9).resize == 248
    assert Preprocessing.cropped((288, 288), 1.0).resize == 288


def test_preprocessing_round_trip() -> None:
    full = Preprocessing.cropped((224, 224), 0.9, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bilinear")
    assert Preprocessing.from_json(full.to_json()) == full


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"size": 3},
        {"size": [8, 8], "interpolation": "psychic"},
        {"size": [8, 8], "channels": 2},
        {"size": ["a", "b"]},
    ],
)
def test_bad_preprocessing(data: dict[str, object]) -> None:
    with pytest.raises(ModelSourceError, match="preprocessing"):
        Preprocessing.from_json(data)


def test_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    image(20, 10).save(tmp_path / "turned.png", exif=exif)
    assert read_picture(tmp_path / "turned.png").size == (10, 20)


def test_other_modes(tmp_path: Path) -> None:
    transparent = np.zeros((8, 8, 4), np.uint8)
    Image.fromarray(transparent).save(tmp_path / "rgba.png")
    assert load_picture(tmp_path / "rgba.png", PLAIN).min() == 1  # shown on white
    deep = np.full((8, 8), 65535 // 2, np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    np.testing.assert_allclose(load_picture(tmp_path / "deep.png", PLAIN), 0, atol=0.01)
    image(mode="L").convert("P").save(tmp_path / "palette.gif")
    assert load_picture(tmp_path / "palette.gif", PLAIN).shape == (1, 3, 8, 8)
    image().convert("CMYK").save(tmp_path / "cmyk.jpg")
    assert load_picture(tmp_path / "cmyk.jpg", Preprocessing((8, 8), 8, channels=1)).shape == (1, 1, 8, 8)


def png_of(width: int, height: int) -> bytes:
    """A PNG of 60 bytes that claims a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 10)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "this is no picture"),
        (b"no picture at all", "this is no picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "this is no picture"),
        (png_of(50_000, 50_000), "decompression bomb"),
        (png_of(10_000, 9_000), "decompression bomb"),
        (png_of(5_000, 20), "5000 x 20 pixels: a strip like this"),
        (png_of(300, 300), "damaged or cut short"),
    ],
)
def test_what_is_no_picture(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    with pytest.raises(ModelSourceError, match=rf"bad\.png: .*{words}"):
        load_picture(path, PLAIN)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_truncated_pictures(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut.{suffix}"
    image(64, 64).save(path)
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(ModelSourceError, match=r"damaged or cut short|no picture"):
        load_picture(path, PLAIN)


def test_absent(tmp_path: Path) -> None:
    with pytest.raises(ModelSourceError, match="there is no such file"):
        read_picture(tmp_path / "a.png")
    with pytest.raises(ModelSourceError, match="this is a folder"):
        read_picture(tmp_path)


def test_real_photographs(zoo: ModuleType) -> None:
    x = load_picture(zoo.HERE / "images" / "imagenet" / "photo_zebra.jpg", Preprocessing.cropped((224, 224), 0.9))
    assert x.shape == (1, 3, 224, 224)
    assert x.std() > 0.2


def test_colours_of_the_pullback() -> None:
    pullback = np.zeros((3, 10, 10))
    pullback[:, 2, 3], pullback[:, 7, 8] = 1, -1
    pixels = np.asarray(panels.pullback_tile(pullback)).astype(int)
    red, blue, nothing = pixels[2, 3], pixels[7, 8], pixels[0, 0]
    assert red[0] > red[2] + 50
    assert blue[2] > blue[0] + 50
    assert nothing.min() >= 245


def test_channels_that_cancel_are_seen_in_the_overlay_alone() -> None:
    pullback = np.zeros((3, 64, 64))
    pullback[0, 30:34, 30:34], pullback[1, 30:34, 30:34] = 1, -1
    assert np.asarray(panels.pullback_tile(pullback)).min() >= 245
    overlay = np.asarray(panels.overlay_tile(np.zeros((3, 64, 64)), pullback)).astype(int)
    assert overlay[31, 31, 0] > overlay[5, 5, 0] + 60


def test_colours_of_a_contribution() -> None:
    """Orange for, blue against, the picture itself where there is nothing."""
    contribution = np.zeros((4, 4))
    contribution[0, 0], contribution[3, 3] = 2, -2
    grey = np.full((32, 32), 100.0)
    pixels = np.asarray(maps.contribution_tile(grey, contribution)).astype(int)
    orange, blue, nothing = pixels[2, 2], pixels[29, 29], pixels[2, 29]
    assert orange[0] > orange[1] > orange[2] + 50
    assert blue[2] > blue[0] + 80
    assert nothing.tolist() == [100, 100, 100]


def test_a_focus_needs_both() -> None:
    contribution, pullback = np.zeros((2, 2)), np.zeros((3, 16, 16))
    contribution[0, 0], contribution[1, 1], pullback[:, 3, 3], pullback[:, 12, 12] = 1, -1, 1, 1
    found = maps.focus(contribution, pullback)
    assert found.argmax() == 3 * 16 + 3
    assert found[12, 12] == 0
    assert found.min() == 0
    both = maps.focus(np.stack([contribution, -contribution]), np.stack([pullback, pullback]))
    np.testing.assert_allclose(both[0], found)
    assert both[1, 3, 3] == 0


def test_a_panel_draws_what_is_asked_for() -> None:
    x, coarse = np.zeros((3, 64, 64)), np.ones((4, 4))
    widths = [panel(x, x, "zebra", contribution=coarse, draw=kinds).width for kinds in (None, panels.KINDS, ["focus"])]
    assert widths[2] < widths[0] < widths[1]
    with pytest.raises(ValueError, match="there is none"):
        panel(x, x, "zebra", draw=["contribution"])


@pytest.mark.parametrize("size", [8, 32, 64, 224, 384])
@pytest.mark.parametrize("ascent", [False, True])
def test_panel(size: int, ascent: bool) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (1, 3, size, size)).astype(np.float32)
    drawn = panel(x, x, "zebra: logit 12.34", counterfactual=x if ascent else None)
    assert drawn.width >= (4 if ascent else 3) * 320
    assert drawn.height >= 320 + 60
    title = np.asarray(drawn.convert("L"))[:40]
    assert (title < 100).sum() > 100  # there is ink


def test_panel_of_nothing() -> None:
    assert panel(np.zeros((1, 8, 8)), np.zeros((1, 8, 8)), "").width > 900


def test_blur_keeps_the_sum() -> None:
    spot = np.zeros((41, 41))
    spot[20, 20] = 1
    blurred = smoothed(spot, 2.0)
    assert abs(blurred.sum() - 1) < 1e-9
    assert blurred.argmax() == spot.argmax()


def test_long_titles_are_broken() -> None:
    x = np.zeros((3, 64, 64))
    once, twice = panel(x, x, "zebra"), panel(x, x, "a very long name of a class " * 8)
    assert twice.height > once.height
    assert twice.width == once.width
