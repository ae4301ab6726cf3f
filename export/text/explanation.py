"""What each token and each word of a text carries of a logit."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fxpullback.contract.errors import InputError
from fxpullback.export.text.tokenizer import Token, Tokens

CONTRIBUTION, PRODUCT, STRENGTH = "contribution", "pullback times embedding", "strength of the pullback"
_INNER = re.compile(r"\w+(?:['\u2019]\w+)+")
"""A word with an apostrophe inside, which some tokenizers split and a reader does not."""


@dataclass(frozen=True)
class Span:
    """A stretch of a text with its score.

    Attributes:
        text: As it stands in the text; for a special token what the vocabulary calls it.
        score: What it carries of the logit.
        part: 0 for the text, 1 for the second of a pair, None for a token that the tokenizer added.
        start: Where it begins in its text, in characters.
        end: Where it ends.
        tokens: How many tokens it is made of.
    """

    text: str
    score: float
    part: int | None
    start: int
    end: int
    tokens: int = 1


@dataclass(frozen=True)
class Explanation:
    """A text and what each part of it carries of a logit.

    Attributes:
        texts: The text, or the two of a pair.
        tokens: Every token in order, special ones included and padding left out.
        words: The words in order, special tokens left out; the score of a word is the sum over its tokens.
        kind: What the scores are: `contribution`, `pullback times embedding`, or `strength of the pullback`, which has
            no sign and does not add up.
        name: What is explained, such as a class.
        logit: Its logit, or the difference of two.
        padding: What the scores of the padding sum to; 0 where the mask hides it.
        logits: Every logit, `[classes]`.
    """

    texts: tuple[str, ...]
    tokens: tuple[Span, ...]
    words: tuple[Span, ...]
    kind: str
    name: str
    logit: float
    padding: float
    logits: npt.NDArray[np.float32]

    @property
    def signed(self) -> bool:
        """Whether scores are for or against, and add up."""
        return self.kind != STRENGTH

    @property
    def of_words(self) -> float:
        """What all words carry together."""
        return float(sum(word.score for word in self.words))

    @property
    def of_specials(self) -> float:
        """What the tokens that the tokenizer added carry together."""
        return float(sum(token.score for token in self.tokens if token.part is None))

    @property
    def rest(self) -> float:
        """What of the logit no token carries: biases, positions, and gates that are no straight lines."""
        return self.logit - self.of_words - self.of_specials - self.padding

    def strongest(self, count: int) -> list[Span]:
        """The words of the largest scores, whatever their sign, the largest first."""
        return sorted(self.words, key=lambda word: -abs(word.score))[:count]


def explanation(
    tokens: Tokens,
    outputs: Mapping[str, npt.NDArray[np.float32] | None],
    name: str,
    logit: float,
    *,
    embedding: npt.NDArray[np.float32] | None = None,
) -> Explanation:
    """The explanation of one text.

    Args:
        tokens: The text as the file took it.
        outputs: What the file returned for it: `logits`, `pullback`, and `contribution` where it has one.
        name: What is explained.
        logit: Its logit.
        embedding: Embeddings of the tokens `[1, tokens, dim]`, for a file without contribution: scores are then the
            product with the pullback, summed over the dimensions. Without them they are the norm of the pullback.

    Raises:
        InputError: The outputs are of another text, or hold values that are not finite.
    """
    kind, scores = scores_of(outputs, embedding)
    if scores.shape != (tokens.length,):
        raise InputError(f"{len(scores)} scores for {tokens.length} tokens; pass what the file returned for this text.")
    if not np.isfinite(scores).all():
        raise InputError("the scores of the tokens are not finite; check the file with fxpullback verify.")
    first, last = tokens.place, tokens.place + len(tokens.tokens)
    kept = scores[first:last]
    spans = tuple(
        Span(shown(token, tokens.texts), float(score), token.part, token.start, token.end)
        for token, score in zip(tokens.tokens, kept, strict=True)
    )
    logits = outputs["logits"]
    assert logits is not None
    padding = float(scores[:first].sum() + scores[last:].sum())
    return Explanation(tokens.texts, spans, words_of(tokens, kept), kind, name, logit, padding, logits[0])


def scores_of(
    outputs: Mapping[str, npt.NDArray[np.float32] | None], embedding: npt.NDArray[np.float32] | None = None
) -> tuple[str, npt.NDArray[np.float64]]:
    """What is there to score tokens by, and a score for each, `[tokens]`, of a batch of one."""
    contribution, pullback = outputs.get("contribution"), outputs.get("pullback")
    if contribution is not None and contribution.ndim == 2:
        return CONTRIBUTION, contribution[0].astype(np.float64)
    if pullback is None or pullback.ndim != 3:
        raise InputError("the file returns no pullback [batch, tokens, dim], so its tokens have no scores.")
    held = pullback[0].astype(np.float64)
    if embedding is None:
        return STRENGTH, np.sqrt((held**2).sum(-1))
    if embedding.shape != pullback.shape:
        raise InputError(f"embeddings {embedding.shape} for a pullback {pullback.shape}; they must be alike.")
    return PRODUCT, (held * embedding[0]).sum(-1)


def shown(token: Token, texts: Sequence[str]) -> str:
    """A token as it stands in its text; by its name where nothing stands there."""
    text = "" if token.part is None else texts[token.part][token.start : token.end].strip()
    return text or token.piece


def words_of(tokens: Tokens, scores: npt.NDArray[np.float64]) -> tuple[Span, ...]:
    """The words of a text: neighbouring tokens with no space between that the tokenizer does not set apart.

    A word with an apostrophe inside is one word. A token that is a space alone belongs to the word behind it. Tokens
    that the tokenizer added belong to none.
    """
    inner = [[found.span() for found in _INNER.finditer(text)] for text in tokens.texts]
    groups: list[list[int]] = []
    for index, token in enumerate(tokens.tokens):
        if token.part is None:
            continue
        before = tokens.tokens[groups[-1][-1]] if groups and groups[-1][-1] == index - 1 else None
        if before is not None and _is_one_word(before, token, tokens.texts[token.part], inner[token.part]):
            groups[-1].append(index)
        else:
            groups.append([index])
    return tuple(_word(tokens, group, scores) for group in groups)


def _is_one_word(before: Token, token: Token, text: str, inner: Sequence[tuple[int, int]]) -> bool:
    """Whether a token goes on with the word of the one before it."""
    if before.part != token.part:
        return False
    if not text[before.start : before.end].strip():
        return True
    if any(character.isspace() for character in text[before.end : token.start] + text[token.start : token.end][:1]):
        return False
    if before.group == token.group:
        return True
    return any(start <= before.start and token.end <= end for start, end in inner)


def _word(tokens: Tokens, group: Sequence[int], scores: npt.NDArray[np.float64]) -> Span:
    """One word of its tokens."""
    members = [tokens.tokens[index] for index in group]
    part = members[0].part
    assert part is not None
    start, end = members[0].start, max(token.end for token in members)
    text = tokens.texts[part][start:end].strip() or "".join(token.piece for token in members)
    return Span(text, float(scores[list(group)].sum()), part, start, end, len(group))
