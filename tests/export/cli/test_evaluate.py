"""`fxpullback evaluate`: what it prints and writes, how it goes on, what it says of bad input."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from fxpullback.export.cli import app
from fxpullback.export.evaluate.drawn import write_drawn
from fxpullback.export.evaluate.page import ticks_of
from tests.export.cli.commands import run
from tests.export.evaluate import nets

FEW = ("--grid", 4, "--steps", 4, "--runs", 4)


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return nets.linear(tmp_path / "net.onnx")


def test_a_folder_with_table_json_and_page(net: Path, tmp_path: Path) -> None:
    exact = nets.linear(tmp_path / "exact.onnx", rules="exact")
    pictures = nets.folder(tmp_path / "pictures", 8, masks=True)
    text, notes = run("evaluate", net, pictures, "--baseline", exact, "--limit", 6, *FEW)
    assert "occlusion (high)" in text
    assert "integrated gradients" in text
    assert "6 pictures make wide and rough intervals" in notes
    folder = Path("net-evaluation")
    assert sorted(path.name for path in folder.iterdir()) == ["index.html", "report.json", "rows.jsonl", "table.csv"]
    held = json.loads((folder / "report.json").read_text())
    assert held["about"]["count"] == 6
    assert held["about"]["settings"]["grid"] == 4
    page = (folder / "index.html").read_text()
    assert page.count("<svg") == len(held["columns"])
    assert "http" not in page
    # What a difference's interval leaves open has no colour.
    for cells in re.findall(r'class="n( good| bad)?">([+-]\S+) \[(\S+), (\S+)\]</td></tr>', page):
        assert bool(cells[0]) == (float(cells[2]) > 0 or float(cells[3]) < 0)
    before = (folder / "rows.jsonl").read_text()
    run("evaluate", net, pictures, "--baseline", exact, "--limit", 6, *FEW)
    assert (folder / "rows.jsonl").read_text() == before


def test_chosen_metrics_methods_and_reference(net: Path, tmp_path: Path) -> None:
    pictures = nets.folder(tmp_path / "pictures")
    chosen = ("--metric", "occlusion,random-logit", "--method", "pullback", "--method", "noise", "--reference", "noise")
    text, _ = run("evaluate", net, pictures, *chosen, "-o", "out", *FEW)
    assert "insertion" not in text
    assert "constant" not in text
    held = json.loads(Path("out/report.json").read_text())
    assert held["reference"] == "noise"
    assert {cell["column"] for cell in held["cells"]} == {"occlusion", "occlusion, wide", "random logit"}


def test_another_file_beside(net: Path, tmp_path: Path) -> None:
    pictures, plain = nets.folder(tmp_path / "pictures"), nets.linear(tmp_path / "plain.onnx", rules="exact")
    text, _ = run("evaluate", net, pictures, "--beside", f"plain={plain}", "--metric", "occlusion", "-o", "out", *FEW)
    assert "plain pullback" in text
    _, said = run("evaluate", net, pictures, "--beside", "plain.onnx", code=2)
    assert "a name and a file are wanted" in " ".join(said.split())


def test_names_are_escaped_in_the_page(tmp_path: Path) -> None:
    net = nets.linear(tmp_path / "<b>&net.onnx")
    run("evaluate", net, nets.folder(tmp_path / "pictures"), "--metric", "occlusion", "-o", "out", *FEW)
    page = Path("out/index.html").read_text()
    assert "<b>&net" not in page
    assert "&lt;b&gt;&amp;net" in page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("none",), "no such folder"),
        (("pictures", "--metric", "beauty"), "there is none of that name"),
        (("pictures", "--baseline", "net.onnx"), "Compile the model with --rules exact"),
        (("pictures", "-o", "net.onnx"), "this is a file; name a folder with -o"),
        (("pictures", "-o", "no/folder"), "the folder cannot be made"),
    ],
)
def test_bad_input_says_what_to_do(net: Path, tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    nets.folder(tmp_path / "pictures")
    _, said = run("evaluate", net, *arguments, code=1)
    assert words in said


def test_numbers_that_make_no_sense(net: Path, tmp_path: Path) -> None:
    _, said = run("evaluate", net, tmp_path, "--grid", "1", code=2)
    assert "4 or more is wanted" in said


def test_the_demo_network_looks_at_the_object(tmp_path: Path) -> None:
    import fxpullback
    from fxpullback.export import to_onnx
    from fxpullback.export.zoo.demo_model import demo_model, draw

    pictures = write_drawn(tmp_path / "drawn", 12)
    file = tmp_path / "demo.onnx"
    to_onnx(fxpullback.compile(demo_model(), (draw(0, 2)[0],), taps="auto"), file, certify=False)
    run("evaluate", file, pictures, "--metric", "object-share", "-o", "out", *FEW)
    means = {
        cell["method"]: cell["mean"]
        for cell in json.loads(Path("out/report.json").read_text())["cells"]
        if cell["column"] == "object lift"
    }
    assert means["constant"] == pytest.approx(1)
    assert means["pullback"] > 3
    assert means["focus"] > 3
    assert 0.8 < means["noise"] < 1.2


def test_ticks_are_round_and_cover() -> None:
    assert ticks_of(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    for low, high in ((-0.37, 0.41), (0, 117.0), (-3e-5, 0), (0, 0)):
        ticks = ticks_of(low, high)
        assert ticks[0] <= low
        assert ticks[-1] >= high
        assert 3 <= len(ticks) <= 9
        assert np.ptp(np.diff(ticks)) < 1e-9


def test_the_command_is_listed() -> None:
    assert app is not None
    text, _ = run("--help")
    assert "evaluate" in text


MODEL = """
import numpy as np, torch
from torch import nn
from tests.export.evaluate import nets

class Net(nn.Module):
    def __init__(self, scale=2.0):
        super().__init__()
        self.keep = nn.Conv2d(3, 3, 1, bias=False)
        self.head = nn.Linear(192, 4, bias=False)
        with torch.no_grad():
            self.keep.weight.copy_(torch.eye(3)[:, :, None, None])
            self.head.weight.copy_(scale * torch.from_numpy(nets.weights()).flatten(1))
    def forward(self, x):
        return self.head(self.keep(x).flatten(1))
"""


def test_the_model_itself_takes_options(net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("own_net.py").write_text(MODEL)
    monkeypatch.syspath_prepend(str(Path.cwd()))
    pictures = nets.folder(tmp_path / "pictures")
    asked = (net, pictures, "--model", "own_net:Net", "--metric", "occlusion", *FEW)
    _, said = run("evaluate", *asked, "-o", "twice", code=1)
    assert "logits" in said  # those of a network with other weights
    text, _ = run("evaluate", *asked, "--model-option", "scale=1.0", "-o", "once")
    assert "Grad-CAM" in text
    for options in (("--model-option", "scale=1"), ("--weights", "a.pt"), ("--pretrained",)):
        _, said = run("evaluate", net, pictures, *options, code=2)
        assert "it says something of a model" in " ".join(said.split())
