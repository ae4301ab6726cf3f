"""Scores of tokens and words, what they add up to, and how they are drawn."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE, Unigram
from tokenizers.normalizers import Prepend, Replace, Sequence
from tokenizers.pre_tokenizers import ByteLevel

from fxpullback.contract.errors import InputError
from fxpullback.contract.text import Text
from fxpullback.export.text import drawn
from fxpullback.export.text.explanation import PRODUCT, STRENGTH, Explanation, explanation
from fxpullback.export.text.tokenizer import Reader, Tokens
from tests.export.text.tiny import taken, text

GIVEN = "The actors don't unable: good-day!"


def tokens_of(*texts: str, length: int | str = "tokens", **options: object) -> Tokens:
    names = ("attention_mask", "token_type_ids")
    return Reader(text(**options), taken("input_ids", length=length)["input_ids"], taken(*names))(*texts)


def explained(tokens: Tokens, scores: list[float] | None = None, logit: float = 3.0) -> Explanation:
    held = np.arange(1.0, tokens.length + 1) if scores is None else np.array(scores)
    outputs = {"logits": np.array([[1, 3]], np.float32), "contribution": held[None].astype(np.float32)}
    return explanation(tokens, outputs, "for", logit)


def test_words_are_those_a_reader_sees() -> None:
    found = explained(tokens_of(GIVEN))
    assert [word.text for word in found.words] == ["The", "actors", "don't", "unable", ":", "good", "-", "day", "!"]
    assert [word.tokens for word in found.words] == [1, 3, 3, 2, 1, 1, 1, 1, 1]


def test_the_score_of_a_word_is_the_sum_over_its_tokens() -> None:
    found = explained(tokens_of(GIVEN))
    scores = [token.score for token in found.tokens]
    assert found.words[1].score == sum(scores[2:5])
    assert found.words[2].score == sum(scores[5:8])
    assert found.of_words + found.of_specials + found.padding + found.rest == pytest.approx(found.logit)
    assert found.of_specials == scores[0] + scores[-1]


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_is_summed_apart(side: str) -> None:
    tokens = tokens_of("a day", length=6, side=side)
    found = explained(tokens, [1, 2, 3, 4, 5, 6])
    assert [token.score for token in found.tokens] == ([1, 2, 3, 4] if side == "right" else [3, 4, 5, 6])
    assert found.padding == (11 if side == "right" else 3)


def test_pairs_keep_their_words_apart() -> None:
    found = explained(tokens_of("a day", "day late"))
    assert [(word.text, word.part) for word in found.words] == [("a", 0), ("day", 0), ("day", 1), ("late", 1)]


def test_without_contribution_the_embedding_or_the_norm_scores() -> None:
    tokens = tokens_of("a day")
    rng = np.random.default_rng(0)
    pullback, embedding = rng.normal(size=(2, 1, 4, 3)).astype(np.float32)
    outputs = {"logits": np.zeros((1, 2), np.float32), "pullback": pullback}
    product = explanation(tokens, outputs, "for", 1.0, embedding=embedding)
    assert product.kind == PRODUCT
    held, table = pullback[0].astype(np.float64), embedding[0].astype(np.float64)
    assert [t.score for t in product.tokens] == pytest.approx(list((held * table).sum(1)))
    strength = explanation(tokens, outputs, "for", 1.0)
    assert (strength.kind, strength.signed) == (STRENGTH, False)
    assert [t.score for t in strength.tokens] == pytest.approx([float(np.linalg.norm(p)) for p in held])
    assert "does not add up" in drawn.sums(strength)
    assert "for or against is not told" in printed(strength)


def test_outputs_of_another_text_are_refused() -> None:
    with pytest.raises(InputError, match="3 scores for 4 tokens"):
        explained(tokens_of("a day"), [1, 2, 3])
    with pytest.raises(InputError, match="not finite"):
        explained(tokens_of("a day"), [1, 2, 3, float("nan")])
    with pytest.raises(InputError, match="no pullback"):
        explanation(tokens_of("a day"), {"logits": np.zeros((1, 2), np.float32)}, "for", 1.0)


def byte_level(words: tuple[str, ...]) -> Text:
    """As GPT-2 has it: bytes, with the space before a word part of its token."""
    alphabet = ByteLevel.alphabet()
    merges: list[tuple[str, str]] = []
    vocabulary = {token: index for index, token in enumerate(sorted(alphabet))}
    for word in words:
        held = "\u0120" + word
        for end in range(1, len(held)):
            if (pair := (held[:end], held[end])) not in merges:
                merges.append(pair)
                vocabulary.setdefault(held[: end + 1], len(vocabulary))
    made = Tokenizer(BPE(vocabulary, merges))
    made.pre_tokenizer, made.decoder = ByteLevel(add_prefix_space=True), ByteLevelDecoder()
    return Text(made.to_str())


def sentence_pieces() -> Text:
    """As Llama has it: nothing splits the text, spaces are a sign of their own."""
    signs = [(f"\u2581{word}", -1.0) for word in ("the", "day", "don")] + [(c, -5.0) for c in "\u2581'tablehdyon.x!"]
    made = Tokenizer(Unigram([("<unk>", 0.0), *dict(signs).items()], 0, False))
    made.normalizer = Sequence([Prepend("\u2581"), Replace(" ", "\u2581")])
    return Text(made.to_str())


@pytest.mark.parametrize(
    ("made", "given", "wanted"),
    [
        (byte_level(("the", "day")), "the day, thex  day é", ["the", "day", ",", "thex", "day", "é"]),
        (byte_level(("don",)), "don't day", ["don't", "day"]),
        (sentence_pieces(), "the day don't bad", ["the", "day", "don't", "bad"]),
    ],
)
def test_words_of_other_kinds_of_tokenizers(made: Text, given: str, wanted: list[str]) -> None:
    tokens = Reader(made, taken("input_ids")["input_ids"], {})(given)
    assert [word.text for word in explained(tokens).words] == wanted


def printed(found: Explanation, top: int = 4, colour: bool = False) -> str:
    console = Console(width=100, force_terminal=colour, color_system="truecolor" if colour else None)
    with console.capture() as capture:
        console.print(drawn.terminal(found, top))
    return capture.get()


def test_the_terminal_says_the_same_without_colours() -> None:
    found = explained(tokens_of("a good day , never late"), [0, 0.1, 2.5, -0.2, 0, -1.75, 0.3, 0])
    said = printed(found, top=2)
    assert "a good[+2.500] day , never[-1.750] late" in said
    assert re.search(r"1\s+good\s+\+2.500\s+\+{20}", said)
    assert re.search(r"2\s+never\s+-1.750\s+-{14}", said)
    assert "words 0.950 + special tokens 0.000 + what no token carries 2.050 = 3.000" in said
    assert max(map(len, said.splitlines())) <= 100
    assert "\x1b[" not in said
    assert "48;2;" in printed(found, colour=True)


def test_orange_is_for_and_blue_against() -> None:
    for score in (0.2, 1.0):
        red, _, blue = drawn.colour_of(score, 1.0)
        assert red > blue
        red, _, blue = drawn.colour_of(-score, 1.0)
        assert red < blue
    assert drawn.ink_on(drawn.colour_of(-1, 1)) == "#ffffff"
    assert drawn.ink_on(drawn.colour_of(0, 1)) == "#000000"


def test_commands_to_the_terminal_are_not_passed_on() -> None:
    assert "\x1b" not in printed(explained(tokens_of("a \x1b[31mgood day")))


class Reading(HTMLParser):
    """The text of a page, its tags, and the addresses it asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.asked: list[str] = []
        self.titles: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.asked += [value or "" for name, value in attrs if name in ("src", "href")]
        self.titles += [value or "" for name, value in attrs if name == "title"]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_whole_and_escaped() -> None:
    given = 'a <script>alert("x")</script> good & bad day'
    tokens = tokens_of(given, "never <b>late</b>")
    scores = np.linspace(-1, 1, tokens.length).tolist()
    page = Reading()
    page.feed(drawn.html(explained(tokens, scores), about="<i>file</i>", notes=("cut <off>",)))
    assert not page.asked
    assert not {"script", "b", "i", "off"} & set(page.tags)
    assert given in page.text
    assert "<i>file</i>" in page.text
    assert "cut <off>" in page.text
    assert page.titles[: tokens.length - 3] == [
        f"{score:+.3f}" for score, token in zip(scores, tokens.tokens, strict=True) if token.part is not None
    ]
