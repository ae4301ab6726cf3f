"""Models of a picture and a text from a folder of transformers: how well the two match is the one logit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fxpullback.contract.errors import ModelSourceError
from fxpullback.export.pictures.preprocessing import Preprocessing
from fxpullback.export.zoo.hubs import Source
from fxpullback.export.zoo.hugging_face_folder import outputs, parameters
from fxpullback.export.zoo.hugging_face_pictures import preprocessing_of
from fxpullback.export.zoo.hugging_face_text import check_length, tokenizer_and_text, tokens_of
from fxpullback.export.zoo.normalise import Normalise

PICTURE, IDS = "pixel_values", "input_ids"
_ADVICE = (
    "Compile it from Python, wrapped in a module that returns one logit for a picture and a text: "
    "fxpullback.compile(model, {...}, explain=('pixel_values', 'input_ids'))."
)
_FILLED_UP = ("siglip", "siglip2")
"""Models that were trained on texts filled up to one length, and given no mask."""


class Matching(nn.Module):
    """One logit for how well a picture and a text match, sample by sample.

    Args:
        network: A model of transformers that returns `logits_per_image`.
        preprocessing: What its image processor does; mean and standard deviation go in front.
        is_reversed: Whether the network takes blue first.
    """

    def __init__(self, network: Any, preprocessing: Preprocessing, is_reversed: bool) -> None:
        super().__init__()
        assert preprocessing.mean is not None
        assert preprocessing.std is not None
        self.network, self.is_reversed = network, is_reversed
        self.normalise = Normalise(preprocessing.mean, preprocessing.std)

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        """RGB in [-1, 1] `[batch, 3, height, width]` and ids `[batch, tokens]` to logits `[batch, 1]`."""
        pixels = pixel_values.flip(1) if self.is_reversed else pixel_values
        given = {"attention_mask": attention_mask, "token_type_ids": token_type_ids}
        found = self.network(
            pixel_values=self.normalise(pixels),
            input_ids=input_ids,
            **{name: value for name, value in given.items() if value is not None},
        )
        logits: Tensor = found.logits_per_image.diagonal().unsqueeze(1)
        return logits


def takes_both(kind: Any) -> bool:
    """Whether a class of transformers takes a picture and a text."""
    return {PICTURE, IDS} <= set(parameters(kind))


def of_pairs(spec: str, folder: Path, model: Any, transformers: Any, length: int | None) -> Source:
    """The model of a folder, with its tokenizer and its image processor.

    Args:
        spec: What the user called it.
        folder: The folder.
        model: The model.
        transformers: The library.
        length: Tokens a text is filled up to; None for as many as the model takes.

    Raises:
        ModelSourceError: The model returns no similarity of a picture and a text, or one of the two processors is
            absent or does what is not known here.
    """
    text, tokenizer, notes = tokenizer_and_text(spec, folder, model, transformers)
    if length is None and text.longest is None:
        raise ModelSourceError(f"{spec}: nothing says how many tokens a text may have. Pass --length.")
    check_length(spec, text, length)
    ids = tokens_of(spec, model, tokenizer, text, text.longest if length is None else length)
    if "attention_mask" not in ids:
        if model.config.model_type not in _FILLED_UP:
            raise ModelSourceError(
                f"{spec}: the tokenizer gives no attention_mask, so what a text is filled up with would count as text. "
                f"Save one that does: model_input_names=['input_ids', 'attention_mask']. {_ADVICE}"
            )
        text = text.filled_up()
    preprocessing, is_reversed = preprocessing_of(spec, folder, transformers)
    pixels = torch.rand((2, 3, *preprocessing.size), generator=torch.Generator().manual_seed(0)) * 2 - 1
    examples = {PICTURE: pixels, **ids}
    matrix = getattr(outputs(spec, model, examples, _ADVICE), "logits_per_image", None)
    if not isinstance(matrix, Tensor) or matrix.shape != (2, 2):
        raise ModelSourceError(
            f"{spec}: {type(model).__name__} takes a picture and a text and returns no logits_per_image, one for each "
            f"of both. {_ADVICE}"
        )
    return Source(
        Matching(model, preprocessing, is_reversed).eval().requires_grad_(False),
        tuple(pixels.shape[1:]),
        preprocessing,
        classes=["match"],
        notes=tuple(notes),
        examples=tuple(examples.values()),
        names=tuple(examples),
        text=text,
        explains={"explain": (PICTURE, IDS)},
    )
