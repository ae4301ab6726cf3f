"""From the options of `fxpullback compile` to a program, rules, taps and the model's source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from fxpullback import EXACT, REFERENCE, SEMANTIC, Ascent, Double, Soft
from fxpullback.export.cli.terminal import options_of, pairs

RULES = {"semantic": SEMANTIC, "reference": REFERENCE, "exact": EXACT}


def program_of(name: str, given: Mapping[str, Any]) -> Any:
    """The program with its options: `alpha`, `steps`, `clip`, `clip-when` and `eps`, None where not given.

    Raises:
        typer.BadParameter: An option that this program does not have.
    """
    takes = {"soft": (), "double": ("alpha",), "ascent": tuple(given)}[name]
    for option, value in given.items():
        if value is not None and option not in takes:
            raise typer.BadParameter(f"the program {name} has none.", param_hint=f"--{option}")
    clip, clip_when, alpha = given["clip"], given["clip-when"], given["alpha"]
    if clip is False and clip_when not in (None, "never"):
        raise typer.BadParameter("contradicts --no-clip.", param_hint="--clip-when")
    if name == "soft":
        return Soft()
    if name == "double":
        return Double() if alpha is None else Double(alpha=alpha)
    options: dict[str, Any] = {"alpha": alpha, "steps": given["steps"], "eps": given["eps"], "clip_when": clip_when}
    if clip is False or clip_when == "never":
        options |= {"clip_when": None}
        return Ascent(clip=None, **{key: value for key, value in options.items() if value is not None})
    return Ascent(**{key: value for key, value in options.items() if value is not None})


def of_a_file(spec: str, logits: str | None, first: str | None, hold: list[str]) -> dict[str, Any]:
    """What of an ONNX file is the explained input, what the logits, and which inputs are held.

    Raises:
        typer.BadParameter: An input of a model that is no ONNX file; or a value to hold that is no number.
    """
    if spec.endswith(".onnx"):
        return {"output": logits, "first": first, "held": numbers(hold, "--hold")}
    if hold:
        raise typer.BadParameter("it is for .onnx files; of other models pass --example.", param_hint="--hold")
    if first is not None:
        raise typer.BadParameter(
            "it is for .onnx files; of other models the first example is explained.", param_hint="--input"
        )
    return {}


def rules_of(name: str, temperatures: list[str], keep_exact: list[str], noise: str | None) -> Any:
    """The rule set with temperatures, exceptions and noise.

    Raises:
        RuleError: A name that the rule set does not know, a temperature that is none, or noise that it does not take.
    """
    rules: Any = RULES[name]
    if values := numbers(temperatures, "--temperature"):
        rules = rules.with_temperature(**values)
    if noise is not None:
        rules = rules.with_noise(noise)
    return rules.keep_exact(*keep_exact) if keep_exact else rules


def numbers(items: list[str], option: str) -> dict[str, float]:
    """`["sr=16000"]` to `{"sr": 16000.0}`.

    Raises:
        typer.BadParameter: An item has no `=`, a key comes twice, or a value is no number.
    """
    values = {}
    for key, text in pairs(items, option).items():
        try:
            values[key] = float(text)
        except ValueError:
            raise typer.BadParameter(f"{key}={text}: a number is wanted.", param_hint=option) from None
    return values


def calibration_of(name: str, rules: Any, calibrate: str | None, spread: float | None) -> tuple[Any, Path | None]:
    """The rule set as it is to be calibrated, and the folder of pictures, None for noise or for no calibration.

    Args:
        name: Name of the rule set; `semantic` alone is calibrated.
        rules: The rule set.
        calibrate: `noise`, `none` or a folder; None for noise, or for none where the rules are not `semantic`.
        spread: Temperature over the standard deviation of a gate's input; None for 0.9.

    Raises:
        typer.BadParameter: Calibration of rules that have the temperatures of the paper, or a spread without any.
    """
    if name != "semantic" and calibrate not in (None, "none"):
        raise typer.BadParameter(
            f"the rules {name} keep the temperatures of the paper; leave --calibrate out, or choose --rules semantic.",
            param_hint="--calibrate",
        )
    how = calibrate or ("noise" if name == "semantic" else "none")
    if how == "none":
        if spread is not None:
            raise typer.BadParameter("has no meaning without calibration; leave it out.", param_hint="--spread")
        return rules, None
    if spread is not None and not 0 < spread < float("inf"):
        raise typer.BadParameter("a positive number is wanted.", param_hint="--spread")
    return rules.with_spread(*() if spread is None else (spread,)), None if how == "noise" else Path(how)


def taps_of(given: list[str]) -> str | tuple[str, ...] | None:
    """What `compile` takes as taps.

    Raises:
        typer.BadParameter: A word that stands alone, among others.
    """
    if given in ([], ["auto"]):
        return "auto"
    if given == ["none"]:
        return None
    if alone := [word for word in given if word in ("auto", "none")]:
        raise typer.BadParameter(f"{alone[0]} stands alone; name modules, or leave them out.", param_hint="--tap")
    return tuple(given)


def source_of(
    weights: Path | None,
    pretrained: bool,
    size: str | None,
    input_shape: str | None,
    options: list[str],
    classes: Path | None,
    mean: str | None,
    std: str | None,
    example: Path | None,
    length: int | None,
) -> dict[str, Any]:
    """Keyword arguments of `load_model`."""
    return {
        "weights": weights,
        "pretrained": pretrained,
        "size": None if size is None else _size(size),
        "input_shape": None if input_shape is None else _sample(input_shape),
        "options": options_of(options),
        "classes": classes,
        "mean": None if mean is None else _numbers(mean, "--mean"),
        "std": None if std is None else _numbers(std, "--std"),
        "example": example,
        "length": length,
    }


def _size(text: str) -> int | tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.lower().split("x"))
    except ValueError:
        raise typer.BadParameter(f"{text!r}: SIDE, HxW or CxHxW is wanted.", param_hint="--size") from None
    return numbers[0] if len(numbers) == 1 else numbers


def _sample(text: str) -> tuple[int, ...]:
    """The shape of one sample, `2,16000`."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r}: whole numbers with commas between are wanted, such as 2,16000.", param_hint="--input-shape"
        ) from None


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r}: numbers with commas between are wanted.", param_hint=option) from None
