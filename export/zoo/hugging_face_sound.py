"""Classifiers of sound from a folder of transformers: waveforms, or the spectrograms that a feature extractor makes.

What the extractor does goes into the file as a recipe, and is not computed in it: the file takes what it makes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fxpullback.contract.errors import ModelSourceError
from fxpullback.export.zoo.hubs import Source
from fxpullback.export.zoo.hugging_face_folder import check_head, classes_of, logits_of, outputs

INPUTS = ("input_values", "input_features")
_ADVICE = "Compile it as package.module:factory, and pass to Session what its feature extractor makes of a sound."
_SECONDS = 1


@dataclass(frozen=True)
class Sound:
    """How a sound becomes the input of a file.

    Attributes:
        kind: `waveform`, `[batch, samples]`; or `spectrogram`, whatever the extractor makes.
        sampling_rate: Samples a second.
        samples: How many samples of a sound are taken; a shorter one is filled up with zeros, as the extractor does.
        normalise: Of a waveform: whether it is scaled to mean 0 and variance 1 (with 1e-7 added), each by itself.
        extractor: Name of the class of transformers that does it.
        settings: Its settings, of a spectrogram.
    """

    kind: str
    sampling_rate: int
    samples: int
    normalise: bool = False
    extractor: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As it is stored in the file."""
        return asdict(self)

    def waveform(self, sound: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """What the extractor makes of samples in [-1, 1], for a file of waveforms: float32 [1, samples]."""
        held = np.zeros(self.samples, np.float32)
        held[: len(sound)] = sound[: self.samples]
        if self.normalise:
            held = (held - held.mean()) / np.sqrt(held.var() + 1e-7)
        return held[None].astype(np.float32)


def of_sound(spec: str, folder: Path, model: Any, transformers: Any, length: int | None) -> Source:
    """The model of a folder, with what its feature extractor does.

    Args:
        spec: What the user called it.
        folder: The folder.
        model: The model.
        transformers: The library.
        length: Samples of a sound; None for one second, or for as many as the extractor fills up to.

    Raises:
        ModelSourceError: The model has no head, or the extractor is absent or does what is not known here.
    """
    task = "ForAudioClassification" if "Whisper" in type(model).__name__ else "ForSequenceClassification"
    check_head(spec, type(model), task)
    extractor = _extractor(spec, folder, transformers)
    rate = int(extractor.sampling_rate)
    samples = length or int(getattr(extractor, "n_samples", None) or rate * _SECONDS)
    name = type(model).main_input_name
    drawn = np.random.default_rng(0).standard_normal((2, samples)).astype(np.float32) * np.float32(0.1)
    made = _made(spec, extractor, list(drawn), name)
    if made.ndim == 2:
        sound = Sound("waveform", rate, samples, bool(getattr(extractor, "do_normalize", False)), _name(extractor))
        own = np.concatenate([sound.waveform(one) for one in drawn])
        if not np.allclose(own, made, atol=1e-4):
            raise ModelSourceError(
                f"{spec}: {_name(extractor)} does more to samples than to scale each sound to mean 0 and variance 1. "
                f"{_ADVICE}"
            )
    else:
        settings = {key: value for key, value in extractor.to_dict().items() if _is_plain(value)}
        sound = Sound("spectrogram", rate, samples, False, _name(extractor), settings)
    example = torch.from_numpy(made)
    logits = logits_of(outputs(spec, model, {name: example}, _ADVICE))
    if logits is None or logits.ndim != 2:
        raise ModelSourceError(
            f"{spec}: {type(model).__name__} gives no logits [batch, classes] of a sound. Compile it from Python, with "
            "output= and positions=."
        )
    return Source(
        model,
        tuple(example.shape[1:]),
        None,
        classes=classes_of(model, logits, 1),
        notes=(f"one sound is {samples / rate:g} s at {rate} Hz; --length sets its samples",),
        examples=(example,),
        explains={"output": "logits"},
        sound=sound.to_json(),
    )


def _name(extractor: Any) -> str:
    return type(extractor).__name__


def _is_plain(value: Any) -> bool:
    """Whether a setting is no table that is computed of the others."""
    return value is None or isinstance(value, bool | int | float | str)


def _extractor(spec: str, folder: Path, transformers: Any) -> Any:
    try:
        return transformers.AutoFeatureExtractor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise ModelSourceError(
            f"{spec}: no feature extractor (preprocessor_config.json) can be loaded from the folder: "
            f"{type(error).__name__}: {' '.join(str(error).split())[:200]} Save it there: "
            f"feature_extractor.save_pretrained({str(folder)!r})."
        ) from error


def _made(spec: str, extractor: Any, sounds: list[npt.NDArray[np.float32]], name: str) -> npt.NDArray[np.float32]:
    """What the extractor makes of sounds of one length."""
    try:
        made = extractor(sounds, sampling_rate=extractor.sampling_rate, return_tensors="np")
    except Exception as error:
        raise ModelSourceError(
            f"{spec}: {_name(extractor)} fails on a sound of {len(sounds[0])} samples: {type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]} Pass another --length."
        ) from error
    if name not in made:
        raise ModelSourceError(f"{spec}: {_name(extractor)} makes {', '.join(made)}, and the model takes {name}.")
    return np.ascontiguousarray(np.asarray(made[name], np.float32))
