"""A model's injected form as a thing to train: its own parameters, its batch norms as in training.

The compiler captures a model as it is served: batch norm by running statistics, weights as constants of a graph. To
train through the rewritten graph, the model's own parameters and buffers are put in their place, and every batch norm
normalises by its batch and moves its running statistics, as torch's does. Nothing else changes, so without rules the
form gives what the model in training mode gives, and with rules the same logits and other gradients.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, fx, nn

from fxpullback import RuleSet
from fxpullback.calibration import calibrated
from fxpullback.capture import capture
from fxpullback.rewrite import rewrite

SERVED = torch.ops.aten._native_batch_norm_legit_no_training.default
TRAINED = torch.ops.aten._native_batch_norm_legit.default
ROUTING = ("attention", "gated_product", "layer_norm", "group_norm", "rms_norm", "normalization_by_hand")
"""Rules that hold constant what some parameters do: those get no gradient through them, or a part of it."""

Form = Callable[[Tensor], Tensor]


def form_of(model: nn.Module, example: Tensor, rules: RuleSet) -> Form:
    """The injected form of a model, sharing its parameters and buffers.

    Args:
        model: It is trained through the form: an optimiser of its parameters moves both.
        example: Two inputs of the shape it takes.
        rules: `EXACT` for ordinary training; else gates are soft in the backward direction.

    Returns:
        From inputs [batch, ...] to logits [batch, classes], in training mode.

    Raises:
        ValueError: A parameter of the graph is none of the model's.
    """
    rewritten, _ = rewrite(_captured(model, example), rules)
    graph = rewritten.graph
    root = nn.Module()
    for name, value in _shared(model, rewritten).items():
        if isinstance(value, nn.Parameter):
            root.register_parameter(name, value)
        else:
            root.register_buffer(name, value)
    moving = fx.Graph()
    moving.output(moving.graph_copy(graph, {}))
    for node in moving.nodes:
        if node.target is SERVED:
            x, weight, bias, mean, variance, momentum, epsilon = node.args
            node.target, node.args = TRAINED, (x, weight, bias, mean, variance, True, momentum, epsilon)
    trained = fx.GraphModule(root, moving)
    return lambda x: trained(x)[0]


def without_gradient(model: nn.Module, form: Form, x: Tensor) -> dict[str, float]:
    """The share of each parameter's entries that no gradient of the logits reaches, by name; those with none left out.

    Its buffers are left as they were.
    """
    kept = copy.deepcopy(model.state_dict())
    weights = dict(model.named_parameters())
    logits = form(x)
    drawn = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
    slopes = torch.autograd.grad((logits * drawn).sum(), list(weights.values()), allow_unused=True)
    model.load_state_dict(kept)
    shares = {
        name: 1.0 if slope is None else float((slope == 0).double().mean())
        for name, slope in zip(weights, slopes, strict=True)
    }
    return {name: share for name, share in shares.items() if share}


def temperatures_for(model: nn.Module, batches: Iterable[Tensor], rules: RuleSet) -> RuleSet:
    """Temperatures calibrated on training pictures as training sees them: batch norms by the statistics of these.

    Args:
        model: Left as it is; running statistics lag behind the weights, so a copy gathers them anew.
        batches: Of the kind it is trained on; temperatures are found on the first of them.
        rules: A set with a spread.
    """
    held = list(batches)
    settled = copy.deepcopy(model).train()
    for module in settled.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None  # a plain mean over the batches that follow
    with torch.no_grad():
        for batch in held:
            settled(batch)
    told = {"kind": "pictures", "samples": len(held[0])}
    return calibrated(_captured(settled, held[0][:2]), rules, ([(held[0],)], told))


def _captured(model: nn.Module, example: Tensor) -> fx.GraphModule:
    """The graph of a model as it is served; the model stays in the mode it was in."""
    training = model.training
    try:
        return capture(model.eval(), example)
    finally:
        model.train(training)


def _shared(model: nn.Module, graph: nn.Module) -> dict[str, Tensor]:
    """What stands for each constant of a graph: the model's own tensor where it has one of that name."""
    own: dict[str, Tensor] = {f"p_{name.replace('.', '_')}": value for name, value in model.named_parameters()}
    own.update({f"b_{name.replace('.', '_')}": value for name, value in model.named_buffers()})
    held = dict(graph.named_parameters()) | dict(graph.named_buffers())
    lost = [name for name, value in held.items() if isinstance(value, nn.Parameter) and name not in own]
    if lost:
        raise ValueError(f"{', '.join(lost)}: none of the model's parameters. Has it two of like names?")
    for name in held.keys() & own.keys():
        if held[name].shape != own[name].shape:
            raise ValueError(f"{name} is {list(held[name].shape)} in the graph, {list(own[name].shape)} in the model")
    return {name: own.get(name, value) for name, value in held.items()}
