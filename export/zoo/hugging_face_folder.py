"""What any folder of Hugging Face transformers holds: a configuration, and a model with its weights.

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
from fxpullback.export.text.tokenizer import INSTALL

_SHOWN = 5


def config(spec: str, folder: Path) -> dict[str, Any]:
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


def library(spec: str) -> Any:
    """transformers, imported."""
    try:
        import tokenizers  # noqa: F401  # transformers can be installed without
        import transformers
    except ImportError as error:
        raise ModelSourceError(
            f"{spec}: folders of transformers need the libraries transformers and tokenizers: {INSTALL}. ({error})"
        ) from error
    return transformers


def architecture(spec: str, config: Mapping[str, Any], transformers: Any) -> Any:
    """The class that `config.json` names, once it is one of transformers that has a head."""
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
    return kind


def parameters(kind: Any) -> Mapping[str, Any]:
    """What the forward of a model takes, by name."""
    return inspect.signature(kind.forward).parameters


def check_head(spec: str, kind: Any, task: str) -> None:
    """Refuse a bare encoder or decoder, such as BertModel, which returns embeddings.

    Args:
        spec: What the user called it.
        kind: Its class.
        task: What the names of its family's classifiers end in, such as `ForSequenceClassification`.
    """
    name = kind.__name__
    if not name.endswith("Model") or "Head" in name:
        return
    trained = f"{name.removesuffix('Model').removesuffix('Encoder')}{task}"
    import transformers

    hint = f" ({trained})" if hasattr(transformers, trained) else ""
    raise ModelSourceError(
        f"{spec}: {name} has no head: it returns embeddings and no logits to explain. Fine-tune it with a "
        f"head{hint}, or put one on it in Python, as examples/text.py does with class prototypes."
    )


def check_weights(spec: str, folder: Path, name: str) -> None:
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


def loaded(spec: str, folder: Path, kind: Any) -> Any:
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


def outputs(spec: str, model: Any, examples: Mapping[str, Tensor], advice: str) -> Any:
    """What the model makes of the examples."""
    try:
        with torch.no_grad():
            return model(**examples)
    except Exception as error:
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in examples.items())
        raise ModelSourceError(
            f"{spec}: the model does not run on {shapes} alone: {type(error).__name__}: "
            f"{' '.join(str(error).split())[:240]}. {advice}"
        ) from error


def logits_of(found: Any) -> Tensor | None:
    """The output that is called logits; None where there is none."""
    logits = getattr(found, "logits", None)
    return logits if isinstance(logits, Tensor) else None


def classes_of(model: Any, logits: Tensor | None, axis: int) -> list[str] | None:
    """The labels of the model, where its logits are as many along an axis."""
    labels = getattr(model.config, "id2label", None) or {}
    if logits is None or logits.ndim < 2 or logits.shape[axis] != len(labels):
        return None
    return [str(labels[index]) for index in sorted(labels)]


@contextmanager
def quiet(transformers: Any) -> Iterator[None]:
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
