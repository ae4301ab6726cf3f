"""The pictures of real files: what is drawn for them, and what is drawn of them."""

from __future__ import annotations

import numpy as np
from PIL import Image

from benchmarks.importer.pictures import as_ids, bytes_drawn, page, sheet, written


def test_bytes_are_laid_out_as_the_file_takes_them() -> None:
    ids = as_ids(b"  ab" + b"c" * 10 + b" ")
    assert ids.shape == (1, 2048)
    assert ids[0, :13].tolist() == [97, 98, *[99] * 10, 32]
    assert ids[0, 13:1024].eq(256).all()
    assert ids[0, -12:].tolist() == [97, 98, *[99] * 10] or ids[0, -14:].tolist() == [32, 32, 97, 98, *[99] * 10]
    long = as_ids(bytes(range(33, 127)) * 30)
    assert long[0, 0] == 33
    assert long[0, -1] == 126
    assert int(long.max()) < 256


def test_what_carries_a_byte_is_orange_and_what_speaks_against_it_blue() -> None:
    drawn = np.asarray(bytes_drawn(b"a b\nc", np.array([1.0, 0.0, -1.0, 0.0, 0.0]), "title"))
    left, middle, right = (drawn[46, 16 + 9 * i] for i in range(3))
    assert left[0] > left[2]
    assert right[2] > right[0]
    assert middle.tolist() == [255, 255, 255]


def test_a_page_and_a_line_hold_text_and_a_sheet_holds_tiles() -> None:
    assert np.asarray(page().convert("L")).min() < 60
    assert written().size == (320, 48)
    tile = Image.new("RGB", (20, 10), "red")
    assert sheet([[(tile, "a"), (tile, "b")], [(tile, "c")]], "title").size == (16 + 2 * 36, 52 + 2 * 50)
