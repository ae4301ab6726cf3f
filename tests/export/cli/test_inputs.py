"""The command line with models that take several inputs: examples, extras of a call, and what is said without them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.export import Dim

from fxpullback.contract.errors import ModelSourceError
from fxpullback.export import Session
from fxpullback.export.zoo.arrays import read_examples, read_extras
from fxpullback.export.zoo.models import load_model
from tests.export.cli.commands import run
from tests.several_inputs import CASES, Ids, TwoPictures

SPEC = "tests.several_inputs:TwoPictures"


def examples() -> tuple[torch.Tensor, ...]:
    return CASES["two pictures"].inputs(2, 3, torch.float32)


def picture() -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("meadow.png")
    return Path("meadow.png")


def test_the_whole_way() -> None:
    x, other = examples()
    np.savez("example.npz", other=other.numpy(), x=x.double().numpy())  # numpy's own type, in another order
    np.save("other.npy", other[0].numpy())
    torch.manual_seed(0)
    run("compile", SPEC, "--example", "example.npz", "-o", "two.onnx")
    assert str(Session("two.onnx").extras["other"]) == "other float32 [batch, 3, 7, 7]"
    printed, _ = run("inspect", "two.onnx")
    assert "passed through" in printed
    run("verify", "two.onnx")
    printed, _ = run("explain", "two.onnx", picture(), "--target", 2, "--extra", "other=other.npy", "-o", "drawn.png")
    assert "class 2" in printed
    assert Path("drawn.png").is_file()
    np.save("batch.npy", other[:1].numpy())
    again, _ = run("explain", "two.onnx", "meadow.png", "--target", 2, "--extra", "other=batch.npy", "-o", "drawn.png")
    assert again == printed


def test_what_explain_says_of_extras() -> None:
    torch.save(examples(), "example.pt")
    run("compile", SPEC, "--example", "example.pt", "-o", "two.onnx")
    np.save("small.npy", np.zeros((3, 5, 5), np.float32))
    np.savez("several.npz", a=np.zeros(3), b=np.zeros(3))
    for extras, words in (
        ([], "besides the picture it takes other float32 [batch, 3, 7, 7]. Pass --extra other=FILE.npy"),
        (["--extra", "other=small.npy"], "other: the shape is (1, 3, 5, 5), and (1, 3, 7, 7) is wanted"),
        (["--extra", "other=absent.npy"], "absent.npy: there is no such file"),
        (["--extra", "other=several.npz"], "one array is wanted for other, and it holds 2"),
        (["--extra", "other=small.npy", "--extra", "mask=small.npy"], "no extra input called mask"),
    ):
        _, said = run("explain", "two.onnx", picture(), *extras, code=1)
        assert words in said


def test_programs_bring_their_examples() -> None:
    batch, inputs = Dim("batch"), CASES["ids"].inputs(3, 3, torch.float32)
    program = torch.export.export(Ids().eval(), inputs, dynamic_shapes=({0: batch},) * 3, strict=False)
    torch.export.save(program, "ids.pt2")
    run("compile", "ids.pt2")
    assert [str(e) for e in Session("ids.onnx").extras.values()] == ["types int64 [batch, 5]", "weight float32 [batch]"]
    loaded = load_model("ids.pt2")
    assert torch.equal(loaded.example, inputs[0])
    assert [torch.equal(a, b) for a, b in zip(loaded.extras, inputs[1:], strict=True)] == [True, True]


def test_examples_of_every_form() -> None:
    x, types, weight = CASES["ids"].inputs(2, 3, torch.float32)
    named = {"weight": weight, "x": x, "types": types}
    np.savez("named.npz", weight=weight.numpy(), x=x.numpy(), types=types.numpy())
    np.savez("ordered.npz", x.numpy(), types.numpy(), weight.numpy())
    torch.save([x, types, weight], "list.pt")
    torch.save(named, "named.pt")
    save_file(named, "named.safetensors")
    for file in ("named.npz", "ordered.npz", "list.pt", "named.pt", "named.safetensors"):
        found = read_examples(Path(file), Ids())
        assert [torch.equal(a, b) for a, b in zip(found, (x, types, weight), strict=True)] == [True] * 3
    np.save("one.npy", x.numpy())
    assert torch.equal(read_examples(Path("one.npy"), TwoPictures())[0], x)
    assert read_extras({"a": "one.npy"})["a"].shape == x.shape


def test_bad_examples() -> None:
    x, types, _ = CASES["ids"].inputs(2, 3, torch.float32)
    np.savez("strange.npz", x=x.numpy(), ids=types.numpy())
    np.savez("gap.npz", x=x.numpy(), weight=np.ones(2))
    np.savez("pickled.npz", x=np.array([{}], dtype=object))
    torch.save([x, 3], "number.pt")
    Path("text.npz").write_text("nothing")
    for file, words in (
        ("strange.npz", "it holds x, ids, and the model takes x, types, weight"),
        ("gap.npz", "it holds no types, which stands before weight"),
        ("pickled.npz", "no arrays can be read from it"),
        ("text.npz", "no arrays can be read from it"),
        ("number.pt", "tensors are wanted, one for each input"),
        ("absent.pt", "there is no such file"),
    ):
        with pytest.raises(ModelSourceError, match=words):
            read_examples(Path(file), Ids())


def test_options_that_do_not_go_with_examples() -> None:
    torch.save(examples(), "example.pt")
    torch.save([torch.zeros(2, 3, 9, 9), torch.zeros(2, 4)], "wrong.pt")
    for arguments, words in (
        ((SPEC, "--example", "example.pt", "--size", 7), "leave --size and --input-shape out"),
        (("timm:resnet18", "--example", "example.pt"), "--example is for package.module:factory and .pt2"),
        ((SPEC, "--example", "wrong.pt"), "does not run on inputs of shapes [2, 3, 9, 9], [2, 4]"),
        ((SPEC, "--size", 7), "for several inputs a file of examples with --example"),
        ((SPEC, "--example", "example.pt", "--mean", "0,0,0", "--std", "1,1,1"), "let it normalise by itself"),
        ((SPEC, "--example", "example.pt", "--calibrate", "."), "fxpullback.calibrate(model, [(x, extra)])"),
    ):
        _, said = run("compile", *arguments, code=1)
        assert words in said
