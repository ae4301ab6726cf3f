"""Several inputs explained together, on the command line: a picture and words, two pictures, rows of numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import fxpullback
from fxpullback.export import Session, to_aoti, to_onnx
from fxpullback.export.pictures.load import load_picture
from fxpullback.export.pictures.preprocessing import Preprocessing
from tests.export.cli.commands import run, width_of
from tests.export.runtime.test_aoti import needs_compiler
from tests.export.text.tiny import VOCABULARY, text
from tests.graph.test_joined import Match, Siamese, both, sides

PAIRS = "tests.export.cli.test_pairs"


def match() -> nn.Module:
    torch.manual_seed(3)
    return Match().eval()


def siamese() -> nn.Module:
    torch.manual_seed(3)
    return Siamese().eval()


class Wide(Siamese):
    """Of pictures of three channels."""

    def forward(self, left: Tensor, right: Tensor) -> Any:
        return super().forward(left[:, :2] + left[:, 2:], right[:, :2] * right[:, 2:])


def wide() -> nn.Module:
    torch.manual_seed(3)
    return Wide().eval()


def examples(given: dict[str, Tensor], file: str) -> str:
    np.savez(file, **{name: (v.float() if v.is_floating_point() else v).numpy() for name, v in given.items()})  # type: ignore[arg-type]
    return file


def compiled(spec: str, given: dict[str, Tensor], *explain: str, code: int = 0, options: tuple[Any, ...] = ()) -> str:
    named = [argument for name in explain for argument in ("--explain", name)]
    file = examples(given, "examples.npz")
    _, said = run("compile", f"{PAIRS}:{spec}", "--example", file, "-o", "pair.onnx", *named, *options, code=code)
    return said


def test_inputs_are_explained_by_name() -> None:
    compiled("match", both(0), "pixels", "ids", options=("--rules", "exact"))
    session = Session("pair.onnx")
    assert list(session.metadata.explains) == ["pixels", "ids"]
    inputs = {name: v.float() if v.is_floating_point() else v for name, v in both(7).items()}
    pixels = inputs["pixels"].requires_grad_(True)
    logits = match()(**inputs)
    (wanted,) = torch.autograd.grad(logits[:, 0].sum(), pixels)
    passed = {name: inputs[name].numpy() for name in ("ids", "shift", "mask")}
    result = session(pixels.detach().numpy(), [0, 0], **passed)
    np.testing.assert_allclose(result.logits, logits.detach(), atol=1e-5)
    np.testing.assert_allclose(result.pullbacks["pixels"], wanted, atol=1e-5)
    printed, _ = run("inspect", "pair.onnx")
    assert re.search(r"explained together +pixels, ids", printed)
    assert re.search(r"passed through +shift, mask", printed)


def test_one_of_several_that_is_not_the_first() -> None:
    compiled("match", both(0), "ids")
    session = Session("pair.onnx")
    assert session.metadata.explains == {"ids": 13}
    assert list(session.extras) == ["shift", "pixels", "mask"]


@pytest.mark.parametrize("program", [("double",), ("ascent", "--no-clip", "--steps", 2)])
def test_every_program(program: tuple[Any, ...]) -> None:
    compiled("match", both(0), "pixels", "ids", options=("--program", *program, "--alpha", 0.5))
    session = Session("pair.onnx")
    moved = program[0] == "ascent"
    assert ("counterfactual.ids" in session.outputs) == moved
    run("verify", "pair.onnx")


def picture(name: str, seed: int) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(name)
    return Path(name)


def arrays(**given: Tensor) -> list[str]:
    """Options for the arrays of one sample."""
    for name, value in given.items():
        np.save(f"{name}.npy", (value.float() if value.is_floating_point() else value).numpy())
    return [word for name in given for word in ("--extra", f"{name}={name}.npy")]


def words_compiled() -> tuple[fxpullback.Pullback, dict[str, Any]]:
    """A model of a picture and of texts, and what its file carries besides."""
    torch.manual_seed(3)
    net = Match()
    net.words = nn.Embedding(len(VOCABULARY), 6)
    given = {name: v.float() if v.is_floating_point() else v for name, v in both(0).items()}
    pb = fxpullback.compile(net.eval(), given, explain=("pixels", "ids"), taps=["see", "read"])
    return pb, {"text": text(mask="mask", types="none"), "classes": ["match", "words"]}


@pytest.fixture
def words() -> Path:
    """A file of a picture and of texts, with the tokenizer of the tests."""
    pb, about = words_compiled()
    return to_onnx(pb, "words.onnx", **about)


def test_a_picture_and_a_text(words: Path) -> None:
    shown = picture("meadow.png", 0)
    shift = arrays(shift=torch.tensor([0.1, 0.2]))
    given = ("explain", words, shown, "--text", "What a day", *shift, "--target", "match", "--html", "page.html")
    printed, _ = run(*given, "-o", "drawn.png")
    session = Session(words)
    pixels = load_picture(shown, Preprocessing.plain((3, 8, 6)))
    ids = np.array([[VOCABULARY[word] for word in ("[CLS]", "what", "a", "day", "[SEP]")]])
    result = session(pixels, [0], ids=ids, shift=np.array([[0.1, 0.2]], np.float32), mask=np.ones((1, 5), np.float32))
    assert printed.startswith(f"match: logit {result.logits[0, 0]:.3f}")
    scores = result.contributions["ids"][0]
    assert f"words {scores[1:4].sum():.3f} + special tokens" in printed
    assert f"pixels: contribution {result.contributions['pixels'].sum():.3f} of the logit" in printed
    assert f"ids: contribution {scores.sum():.3f} of the logit" in printed
    assert width_of("drawn.png") > 600
    page = Path("page.html").read_text(encoding="utf-8")
    assert page.count('class="token"') == 5
    assert f"{scores[3]:+.3f}" in page
    assert "<h2>pixels</h2>" in page
    assert 'src="data:image/png;base64,iVBOR' in page


@needs_compiler
def test_a_package_carries_its_tokenizer_too(words: Path) -> None:
    pb, about = words_compiled()
    package = to_aoti(pb, "words.pt2", **about)
    assert Session(package).text == Session(words).text == about["text"]
    shown, shift = picture("meadow.png", 0), arrays(shift=torch.tensor([0.1, 0.2]))
    printed = [
        run("explain", file, shown, "--text", "What a day", *shift, "--target", "words", "-o", "drawn.png")[0]
        for file in (words, package)
    ]
    assert printed[0] == printed[1]


def test_ids_without_a_tokenizer_and_every_picture_by_name() -> None:
    compiled("match", both(0), "pixels", "ids")
    rest = arrays(**{name: value[0] for name, value in both(0).items() if name != "pixels"})
    printed, _ = run("explain", "pair.onnx", picture("meadow.png", 0), *rest, "--target", 0, "--html", "page.html")
    ids = " ".join(re.sub(r"\[[^]]*\]", "", line) for line in printed.splitlines()[1:2])
    assert ids.split() == [str(int(number)) for number in both(0)["ids"][0]]
    assert Path("page.html").is_file()
    again, _ = run("explain", "pair.onnx", "--image", "pixels=meadow.png", *rest, "--target", 0)
    assert again.split("page.html")[0].strip() == printed.split("page.html")[0].strip()


def test_two_pictures() -> None:
    given = {name: torch.cat([side, side[:, :1]], 1) for name, side in sides(0).items()}
    compiled("wide", given, "left", "right", options=("--program", "ascent", "--no-clip", "--alpha", 1, "--steps", 1))
    one, other = picture("one.png", 0), picture("other.png", 1)
    printed, _ = run("explain", "pair.onnx", one, "--image", f"right={other}", "--target", 1, "-o", "drawn.png")
    assert "counterfactual" in printed
    assert Path("drawn.png").read_bytes() != Path("drawn-right.png").read_bytes()
    swapped, _ = run("explain", "pair.onnx", other, "--image", f"left={one}", "--target", 1, "-o", "again.png")
    assert Path("again.png").read_bytes() == Path("drawn.png").read_bytes()
    assert swapped.splitlines()[0] == printed.splitlines()[0]


def test_what_explain_says_of_several_inputs(words: Path, file: Path) -> None:
    shown, shift = picture("meadow.png", 0), arrays(shift=torch.tensor([0.1, 0.2]))
    for arguments, wanted in (
        ((words, shown), "explains several inputs together, pixels float32 [batch, 3, 8, 6], ids int64 [batch, 5]"),
        ((words, "--text", "a day"), "a picture as PICTURE or --image NAME=FILE, a text with --text"),
        ((words, "--text", "a day", *shift), "pixels is missing, a picture: pass --image pixels=FILE"),
        ((words, shown, *shift), "ids is missing, a text: pass it with --text"),
        (
            (words, shown, "--text", "a day"),
            "shift float32 [batch, 2] is missing: pass --extra shift=FILE",
        ),
        ((words, "--image", f"ids={shown}"), "explains pixels, ids, of which pixels take a picture"),
        ((words, shown, "--image", f"pixels={shown}"), "no input is left that takes the picture"),
        ((words, shown, "--text", "a day", *shift, "--extra", "up=shift.npy"), "--extra up: it takes pixels, ids"),
        ((file, "--image", f"input={shown}"), "it explains input alone"),
    ):
        _, said = run("explain", *arguments, code=1)
        assert wanted in said
    _, said = run("explain", words, shown, "--text", "a day", *shift, "--pair", "a film", code=2)
    assert "is for a file of one text" in said.replace("\u2502", "").replace("  ", " ")


def test_what_is_said_of_names() -> None:
    assert "--explain up: the model takes left, right" in compiled("siamese", sides(0), "left", "up", code=1)
    _, said = run("compile", "timm:resnet18", "--explain", "x", code=1)
    assert "there is an example of one. Pass examples of all of them with --example FILE" in said
    assert not Path("resnet18.onnx").exists()
