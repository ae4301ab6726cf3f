"""`fxpullback compile hf:FOLDER` and `fxpullback explain --text` on small models with random weights."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertForPreTraining, BertForTokenClassification, GPT2Config, GPT2LMHeadModel

import fxpullback
from fxpullback.export import Session, to_onnx
from fxpullback.export.text.tokenizer import Reader
from fxpullback.export.zoo.models import load_model
from tests.export.cli.commands import run
from tests.export.text.tiny import VOCABULARY, bert, bert_config, tokenizer

TEXT, SECOND = "The actors missed the second act, never a good day", "What a film"
Made = Callable[[str], Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A file by the name of what it is; each is compiled once, by the command."""
    root, files = tmp_path_factory.mktemp("texts"), dict[str, Path]()
    sizes: dict[str, Any] = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40, "vocab_size": len(VOCABULARY)}
    kinds: dict[str, tuple[Callable[[], Any], dict[str, Any], list[str]]] = {
        "exact": (lambda: None, {}, ["--rules", "exact"]),
        "fixed": (lambda: None, {}, ["--length", "20"]),
        "tags": (lambda: BertForTokenClassification(bert_config()), {}, []),
        "pretraining": (lambda: BertForPreTraining(bert_config()), {}, ["--logits", "seq_relationship_logits"]),
        "next": (
            lambda: GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=2, eos_token_id=3, pad_token_id=0)),
            {"model_input_names": ["input_ids", "attention_mask"]},
            ["--target", "contrast"],
        ),
    }

    def make(name: str) -> Path:
        if name not in files:
            build, options, arguments = kinds[name]
            folder, files[name] = root / name, root / f"{name}.onnx"
            torch.manual_seed(1)
            if (model := build()) is None:
                bert(folder)
            else:
                model.save_pretrained(folder)
                tokenizer(**options).save_pretrained(folder)
            run("compile", f"hf:{folder}", "-o", files[name], *arguments)
        return files[name]

    return make


def original(file: Path, *texts: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, embeddings and the gradient of the first class there, by transformers and autograd."""
    model: Any = load_model(f"hf:{file.with_suffix('')}").model
    given = {name: torch.tensor([ids]) for name, ids in tokenizer()(*texts).items()}
    x = model.get_input_embeddings()(given.pop("input_ids")).detach().requires_grad_(True)
    logits = model(inputs_embeds=x, **given).logits
    return logits.detach(), x.detach(), torch.autograd.grad(logits[0, 0], x)[0]


def asked(file: Path, *texts: str) -> tuple[Any, Any]:
    """What a file returns for texts, by its own tokenizer, and the tokens."""
    session = Session(file, providers=["cpu"])
    tokens = Reader.of(session)(*texts)
    inputs = dict(tokens.inputs)
    return session(inputs.pop("input_ids"), [0], **inputs), tokens


@pytest.mark.parametrize("texts", [(TEXT,), (TEXT, SECOND)])
def test_a_file_agrees_with_transformers_and_autograd(made: Made, texts: tuple[str, ...]) -> None:
    logits, _, gradient = original(made("exact"), *texts)
    result, _ = asked(made("exact"), *texts)
    np.testing.assert_allclose(result.logits, logits, atol=1e-5)
    np.testing.assert_allclose(result.pullback, gradient, atol=1e-5)


def test_a_fixed_length_hides_what_it_is_filled_up_with(made: Made) -> None:
    logits, _, _ = original(made("fixed"), TEXT)
    result, tokens = asked(made("fixed"), TEXT)
    assert result.contribution.shape == (1, 20)
    np.testing.assert_allclose(result.logits, logits, atol=1e-5)
    assert not result.pullback[0, len(tokens.tokens) :].any()
    _, said = run("explain", made("fixed"), "--text", TEXT)
    assert f"{len(tokens.tokens)} tokens and is filled up to 20" in said
    _, said = run("explain", made("fixed"), "--text", " ".join([TEXT] * 3))
    assert "are cut off at the end" in said


def test_explain_prints_and_writes_a_page(made: Made) -> None:
    printed, _ = run(
        "explain", made("exact"), "--text", TEXT, "--pair", SECOND, "--target", "against", "--html", "a.html"
    )
    result, tokens = asked(made("exact"), TEXT, SECOND)
    assert printed.startswith(f"against: logit {result.logits[0, 0]:.3f}")
    scores = result.contribution[0]
    words = scores[[token.part is not None for token in tokens.tokens]].sum()
    assert f"words {words:.3f} + special tokens" in printed
    assert abs(scores[1:-1]).max() > 1e-3
    page = Path("a.html").read_text(encoding="utf-8")
    assert page.count('class="token"') == len(tokens.tokens)
    assert f"{scores[3]:+.3f}" in page
    ranked = re.findall(r"^ ?\d+ +(\S+) +(?:first|second) +([+-]\d\.\d+)", printed, re.M)
    assert [abs(float(score)) for _, score in ranked] == sorted((abs(float(s)) for _, s in ranked), reverse=True)
    assert len(ranked) == 10
    printed, _ = run("explain", made("exact"), "--text", TEXT, "--top", 2)
    assert len(re.findall(r"\[[+-]\d\.\d{3}\]", printed)) == 2
    assert max(map(len, printed.splitlines())) <= 100


def test_tags_are_explained_at_a_token(made: Made) -> None:
    printed, _ = run("explain", made("tags"), "--text", "What a good day", "--position", 3, "--target", "for")
    assert printed.startswith("for at token 3, good: logit")
    for position in (6, -7):
        _, said = run("explain", made("tags"), "--text", "What a good day", "--position", position, code=1)
        assert "the text has 6 tokens: 0 [CLS], 1 what, 2 a, 3 good, 4 day, 5 [SEP]" in said
    last, _ = run("explain", made("tags"), "--text", "What a good day", "--position", -1)
    assert "at token 5, [SEP]" in last
    model: Any = load_model(f"hf:{made('tags').with_suffix('')}").model
    logits = model(**tokenizer()("What a good day", return_tensors="pt")).logits
    assert f"for at token 3, good: logit {float(logits[0, 3, 1]):.3f}" in printed


def test_the_next_token_is_asked_for_by_its_name(made: Made) -> None:
    given = ("explain", made("next"), "--text", "What a good", "--target", "day", "--against")
    printed, _ = run(*given, "film")
    assert printed.startswith(f"'day' ({VOCABULARY['day']}) against 'film' ({VOCABULARY['film']}) at token 4, [SEP]:")
    assert run(*given, VOCABULARY["film"])[0] == printed
    _, said = run(*given, "films", code=1)
    assert "token 'films': the vocabulary has no such token; it is made of film, ##s" in said
    _, said = run(*given, "999", code=1)
    assert "an id from 0 to" in said


def test_one_of_several_outputs(made: Made) -> None:
    printed, _ = run("explain", made("pretraining"), "--text", TEXT, "--pair", SECOND)
    assert re.match(r"class [01]: logit", printed)
    folder = made("pretraining").with_suffix("")
    _, said = run("compile", f"hf:{folder}", "-o", "other.onnx", code=1)
    assert "seq_relationship_logits" in said
    assert not Path("other.onnx").exists()


def test_inspect_says_that_a_file_takes_text(made: Made) -> None:
    printed, _ = run("inspect", made("exact"))
    assert f"texts of at most 32 tokens, by WordPiece of {len(VOCABULARY)} tokens" in " ".join(printed.split())


def test_pictures_and_texts_are_told_apart(made: Made, file: Path, picture: Path) -> None:
    text_file = made("exact")
    _, said = run("explain", text_file, picture, code=1)
    assert "takes a text and no picture: fxpullback explain" in said
    _, said = run("explain", file, "--text", TEXT, code=1)
    assert "takes no words" in said
    for arguments, wanted in (
        ((file,), "a picture is wanted, or a text with --text"),
        ((file, picture, "--pair", SECOND), "is for a text"),
        ((file, picture, "--html", "a.html"), "is for a text"),
        ((text_file, picture, "--text", TEXT), "is for a picture"),
        ((text_file, "--text", TEXT, "--draw", "pullback"), "is for a picture"),
        ((text_file, "--text", TEXT, "--top", -1), "greater than or equal to 0"),
    ):
        _, said = run("explain", *arguments, code=2)
        assert wanted in said.replace("│", "").replace("  ", " ")


def test_ascent_keeps_embeddings_in_no_range(made: Made) -> None:
    given = ("compile", f"hf:{made('exact').with_suffix('')}", "--program", "ascent", "--steps", 1, "--alpha", 0.1)
    _, said = run(*given, "-o", "a.onnx", code=2)
    assert "pass --no-clip" in said
    run(*given, "-o", "a.onnx", "--no-clip")
    printed, _ = run("explain", "a.onnx", "--text", TEXT)
    assert "counterfactual" in printed


def test_what_a_text_file_does_not_take(made: Made) -> None:
    _, said = run("explain", made("exact"), "--text", " ", code=1)
    assert "the text is empty" in said
    _, said = run("explain", made("exact"), "--text", TEXT, "--position", 1, code=1)
    assert "leave --position out" in said
    _, said = run("explain", made("exact"), "--text", TEXT, "--html", "absent/a.html", code=1)
    assert "there is no folder" in said


def test_a_file_of_ids_without_a_tokenizer_takes_no_text(tmp_path: Path) -> None:
    found = load_model(f"hf:{bert(tmp_path / 'folder', num_hidden_layers=1)}")
    examples = dict(zip(found.names, (found.example, *found.extras), strict=True))
    pb = fxpullback.compile(found.model, examples, at="embeddings")
    path = to_onnx(pb, tmp_path / "ids.onnx", certify=False)
    _, said = run("explain", path, "--text", TEXT, code=1)
    assert "holds no tokenizer" in said
    to_onnx(pb, path, text=found.text, certify=False)  # the advice, followed; and without taps
    printed, _ = run("explain", path, "--text", TEXT, "--top", 3)
    assert "strength of the pullback" in printed
