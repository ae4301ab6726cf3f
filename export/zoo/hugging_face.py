"""Models of text from a folder of Hugging Face transformers: `hf:FOLDER`.

Nothing is downloaded, no code of the folder is run, and weights are read from safetensors alone.
"""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fxpullback.contract.errors import ModelSourceError
from fxpullback.contract.text import Text
from fxpullback.export.text.tokenizer import INSTALL
from fxpullback.export.zoo.hubs import Source
from fxpullback.export.zoo.hugging_face_tokenizer import SENTENCES, check_alike, load_tokenizer, text_of, with_padding

_OF_TEXT = ("input_ids", "attention_mask", "token_type_ids")
_SHOWN = 5


def from_folder(spec: str, folder: Path, *, length: int | None = None) -> Source:
    """The model of a folder, with its tokenizer and with examples in tokens.

    Args:
        spec: What the user called it.
        folder: `config.json`, safetensors, and a tokenizer.
        length: Tokens the examples are filled up to; None for the length of the longer one.

    Raises:
        ModelSourceError: transformers is not installed, or the folder holds something else; the message says what.
    """
    config = _config(spec, folder)
    transformers = _library(spec)
    kind = _architecture(spec, config, transformers)
    _check_weights(spec, folder, kind.__name__)
    with _quiet(transformers):
        model = _loaded(spec, folder, kind)
        tokenizer = load_tokenizer(spec, folder, transformers)
    notes = with_padding(spec, model, tokenizer)
    text = text_of(tokenizer, model)
    check_alike(spec, tokenizer, text)
    if length is not None and text.longest is not None and length > text.longest:
        raise ModelSourceError(f"{spec}: --length {length} is more than the {text.longest} tokens the model takes.")
    examples = _examples(spec, model, tokenizer, text, length)
    logits = _logits(spec, model, examples)
    return Source(
        model,
        tuple(examples["input_ids"].shape[1:]),
        None,
        classes=_classes(model, logits),
        notes=tuple(notes),
        examples=tuple(examples.values()),
        names=tuple(examples),
        text=text,
        explains={} if logits is None else {"output": "logits"} | ({"positions": "index"} if logits.ndim == 3 else {}),
    )


def _config(spec: str, folder: Path) -> dict[str, Any]:
    """`config.json` of a folder."""
    path = folder / "config.json"
    if not folder.is_dir():
        raise ModelSourceError(
            f"{spec}: there is no folder {folder}. hf: takes the folder of a model on this machine, and nothing "
            "is downloaded. Fetch a model with: hf download NAME --local-dir FOLDER"
        )
    if (folder / "adapter_config.json").is_file():
        raise ModelSourceError(
            f"{spec}: the folder holds an adapter (adapter_config.json), which changes another model. Put both "
            "together with merge_and_unload() of the library peft, and save_pretrained() the result elsewhere."
        )
    if not path.is_file():
        raise ModelSourceError(f"{spec}: there is no config.json in {folder}, so it is no folder of transformers.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelSourceError(f"{path}: not readable as JSON ({error}). Fetch the folder again.") from error
    if not isinstance(config, dict):
        raise ModelSourceError(f"{path}: a JSON object is wanted there. Fetch the folder again.")
    if config.get("quantization_config"):
        raise ModelSourceError(
            f"{spec}: the weights are quantised ({config['quantization_config'].get('quant_method', 'unknown')}), and "
            "a pullback needs floating-point ones. Use the folder the quantised model was made of."
        )
    return config


def _library(spec: str) -> Any:
    """transformers, imported."""
    try:
        import tokenizers  # noqa: F401  # transformers can be installed without
        import transformers
    except ImportError as error:
        raise ModelSourceError(
            f"{spec}: models of text need the libraries transformers and tokenizers: {INSTALL}. ({error})"
        ) from error
    return transformers


def _architecture(spec: str, config: Mapping[str, Any], transformers: Any) -> Any:
    """The class that `config.json` names, once it is one of transformers that takes text and has a head."""
    named = config.get("architectures") or []
    if not named:
        raise ModelSourceError(
            f"{spec}: config.json names no architecture. Add it, such as "
            '"architectures": ["BertForSequenceClassification"].'
        )
    name = str(named[0])
    kind: Any = getattr(transformers, name, None)
    known = isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)
    if not known:
        code = " It brings code of its own, which is never run." if config.get("auto_map") else ""
        raise ModelSourceError(
            f"{spec}: transformers {transformers.__version__} has no model {name}.{code} Compile it from Python, "
            "where you build the model yourself: fxpullback.compile(model, {'input_ids': ids}, at='embeddings')."
        )
    if kind.main_input_name != "input_ids":
        raise ModelSourceError(
            f"{spec}: {name} takes {kind.main_input_name}, and hf: is for models of text. Compile it as "
            "package.module:factory, where the factory returns the model."
        )
    if name.endswith("Model") and "Head" not in name:  # a bare encoder or decoder, such as BertModel
        trained = f"{name.removesuffix('Model').removesuffix('Encoder')}ForSequenceClassification"
        hint = f" ({trained})" if hasattr(transformers, trained) else ""
        raise ModelSourceError(
            f"{spec}: {name} has no head: it returns embeddings and no logits to explain. Fine-tune it with a "
            f"head{hint}, or put one on it in Python, as examples/text.py does with class prototypes."
        )
    return kind


def _check_weights(spec: str, folder: Path, name: str) -> None:
    """Refuse weights that are pickled, absent, damaged or none."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".ckpt"))
        if pickled:
            raise ModelSourceError(
                f"{spec}: the weights are pickled ({', '.join(pickled[:_SHOWN])}), and reading them can run code. If "
                f'you trust the folder, write them as safetensors: python -c "from transformers import {name} as M; '
                f'M.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"'
            )
        raise ModelSourceError(f"{spec}: there are no weights (*.safetensors) in {folder}. Fetch the folder again.")
    for path in files:
        try:
            with safe_open(path, "pt") as held:
                held.keys()
        except (SafetensorError, OSError) as error:
            pointer = path.stat().st_size < 1024 and path.read_bytes().startswith(b"version https://git-lfs")
            what = (
                "it is a pointer of Git LFS, and no weights: run git lfs pull in the folder"
                if pointer
                else (f"not a whole safetensors file ({error}): fetch it again")
            )
            raise ModelSourceError(f"{path}: {what}.") from error


def _loaded(spec: str, folder: Path, kind: Any) -> Any:
    """The model with its weights in float32, all of them."""
    try:
        model, info = kind.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are told of below, by name
            attn_implementation="eager",
            dtype=torch.float32,
        )
    except Exception as error:  # whatever a folder provokes in transformers
        raise ModelSourceError(
            f"{spec}: transformers cannot load the folder as {kind.__name__}: {type(error).__name__}: "
            f"{' '.join(str(error).split())[:300]}"
        ) from error
    _check_complete(spec, kind.__name__, info)
    for module in model.modules():  # an encoder and a decoder have a configuration each
        own: Any = getattr(module, "config", None)
        if hasattr(own, "use_cache"):
            own.use_cache = False
    bad = next((n for n, p in model.named_parameters() if not bool(torch.isfinite(p).all())), None)
    if bad is not None:
        raise ModelSourceError(
            f"{spec}: {bad} holds NaN or infinite values; the weights are damaged. Fetch them again."
        )
    return model.eval().requires_grad_(False)


def _check_complete(spec: str, name: str, info: Mapping[str, Any]) -> None:
    """Refuse weights that are not those of the architecture, which transformers would draw at random or leave out."""
    parts = []
    for key, what in (
        ("missing_keys", "missing, which would be random"),
        ("unexpected_keys", "unexpected"),
        ("mismatched_keys", "of another shape"),
    ):
        found = sorted(str(item[0] if isinstance(item, tuple) else item) for item in info.get(key) or ())
        if found:
            more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            parts.append(f"{len(found)} {what}: {', '.join(found[:_SHOWN])}{more}")
    parts += [" ".join(str(said).split())[:200] for said in info.get("error_msgs") or ()]
    if parts:
        raise ModelSourceError(
            f"{spec}: the weights are not those of {name}, which config.json names. {'. '.join(parts)}. Name "
            "there the architecture that the weights were saved from, or train the head and save_pretrained() it all."
        )


def _examples(spec: str, model: Any, tokenizer: Any, text: Text, length: int | None) -> dict[str, Tensor]:
    """Two texts as the model takes them, by the names of its forward."""
    most = text.longest if length is None else length
    options: dict[str, Any] = {} if most is None else {"truncation": True, "max_length": most}
    taken = inspect.signature(model.forward).parameters
    made = tokenizer(
        list(SENTENCES), padding="longest" if length is None else "max_length", return_tensors="pt", **options
    )
    found = {name: made[name] for name in _OF_TEXT if name in made and name in taken}
    rows = model.get_input_embeddings().weight.shape[0]
    if int(found["input_ids"].max()) >= rows:
        raise ModelSourceError(
            f"{spec}: the tokenizer gives ids up to {int(found['input_ids'].max())}, and the model has {rows} "
            "embeddings: they do not belong together. Fetch the folder again."
        )
    return found


def _logits(spec: str, model: Any, examples: Mapping[str, Tensor]) -> Tensor | None:
    """The logits of the examples; None where the model calls none of its outputs that."""
    try:
        with torch.no_grad():
            logits = getattr(model(**examples), "logits", None)
    except Exception as error:
        raise ModelSourceError(
            f"{spec}: the model does not run on {', '.join(examples)} alone: {type(error).__name__}: "
            f"{' '.join(str(error).split())[:240]}. Compile it from Python, wrapped in a module that passes the rest: "
            "fxpullback.compile(model, {'input_ids': ids}, at='embeddings')."
        ) from error
    return logits if isinstance(logits, Tensor) else None


def _classes(model: Any, logits: Tensor | None) -> list[str] | None:
    """The labels of the model, where its logits are as many."""
    labels = getattr(model.config, "id2label", None) or {}
    if logits is None or logits.shape[-1] != len(labels):
        return None
    return [str(labels[index]) for index in sorted(labels)]


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without the bars, remarks and warnings of transformers; what matters of them is said in our words."""
    log = transformers.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity(log.CRITICAL)
    log.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
