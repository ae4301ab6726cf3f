"""Models from a folder of Hugging Face transformers, `hf:FOLDER`: of text, of pictures, of both, or of sound."""

from __future__ import annotations

from pathlib import Path

from fxpullback.contract.errors import ModelSourceError
from fxpullback.export.zoo.hubs import Source
from fxpullback.export.zoo.hugging_face_folder import (
    architecture,
    check_weights,
    config,
    library,
    loaded,
    quiet,
)
from fxpullback.export.zoo.hugging_face_pairs import of_pairs, takes_both
from fxpullback.export.zoo.hugging_face_pictures import of_pictures
from fxpullback.export.zoo.hugging_face_sound import INPUTS as OF_SOUND
from fxpullback.export.zoo.hugging_face_sound import of_sound
from fxpullback.export.zoo.hugging_face_text import of_text


def from_folder(spec: str, folder: Path, *, length: int | None = None) -> Source:
    """The model of a folder, with what makes a text or a picture its input.

    Args:
        spec: What the user called it.
        folder: `config.json`, safetensors, and a tokenizer or an image processor.
        length: Tokens the examples of a text are filled up to; None for the length of the longer one.

    Raises:
        ModelSourceError: transformers is not installed, or the folder holds something else; the message says what.
    """
    settings = config(spec, folder)
    transformers = library(spec)
    kind = architecture(spec, settings, transformers)
    main = kind.main_input_name
    if main not in ("input_ids", "pixel_values", *OF_SOUND):
        raise ModelSourceError(
            f"{spec}: {kind.__name__} takes {main}, and hf: is for models of text, pictures or sound. Compile it as "
            "package.module:factory, where the factory returns the model."
        )
    check_weights(spec, folder, kind.__name__)
    with quiet(transformers):
        model = loaded(spec, folder, kind)
    if takes_both(kind):
        return of_pairs(spec, folder, model, transformers, length)
    if main == "input_ids":
        return of_text(spec, folder, model, transformers, length)
    if main in OF_SOUND:
        return of_sound(spec, folder, model, transformers, length)
    if length is not None:
        raise ModelSourceError(f"{spec}: {kind.__name__} takes pictures; --length is for models of text, leave it out.")
    return of_pictures(spec, folder, model, transformers)
