"""Architectures of transformers at small sizes, with random weights: what docs/support.md and the tests run.

Every model is made of its configuration class alone; nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

VOCABULARY, LENGTH, LABELS = 64, 9, 3

_WIDTH = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_GROUPED = {**_WIDTH, "num_key_value_heads": 2, "max_position_embeddings": 64, "head_dim": 4}
_BERT = {**_WIDTH, "max_position_embeddings": 64, "type_vocab_size": 2}


@dataclass(frozen=True)
class Architecture:
    """One architecture with a task.

    Attributes:
        name: name of the model's class in transformers.
        config: name of the configuration's class.
        settings: what the configuration is made with, beside vocabulary and labels.
        positions: how the logits are taken, where they are at many positions.
        wrap: what makes logits of a model without a head; None where it has one.
        length: tokens of its examples.
    """

    name: str
    config: str
    settings: dict[str, Any]
    positions: str | None = None
    wrap: Callable[[nn.Module], nn.Module] | None = None
    length: int = LENGTH

    def build(self) -> nn.Module:
        """The model, its weights drawn with a fixed seed."""
        import transformers

        settings = {"vocab_size": VOCABULARY, "num_labels": LABELS, "pad_token_id": 0, **self.settings}
        config = getattr(transformers, self.config)(**settings)
        config.use_cache = False
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = getattr(transformers, self.name)(config).eval()
            _stir(model)
            return (self.wrap or (lambda inner: inner))(model).eval()


def _stir(model: nn.Module) -> None:
    """Weights of ordinary size: those that transformers draws are so small that every gate is at its middle."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.4 if "embed" in name else 1.2 / weight.shape[-1] ** 0.5)
            elif "bias" in name:
                weight.normal_(0, 0.1)


def examples(count: int = 2, length: int = LENGTH, seed: int = 0) -> dict[str, Tensor]:
    """Ids and mask of a batch; the last sample is padded, if there are several."""
    drawn = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, VOCABULARY, (count, length), generator=drawn)
    mask = torch.ones_like(ids)
    if count > 1 and length > 3:
        ids[-1, -2:], mask[-1, -2:] = 0, 0
    return {"input_ids": ids, "attention_mask": mask}


class Pooled(nn.Module):
    """An encoder with a mean over its tokens and a linear head, as sentence encoders have it."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        config: Any = encoder.config
        self.head = nn.Linear(getattr(config, "d_model", None) or config.hidden_size, LABELS)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        """Logits `[batch, labels]`."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask[..., None].to(hidden.dtype)
        return self.head((hidden * weights).sum(1) / weights.sum(1))


def _all(tasks: list[str], prefix: str, settings: dict[str, Any], config: str | None = None) -> list[Architecture]:
    positions = {
        "ForTokenClassification": "index",
        "ForCausalLM": "index",
        "LMHeadModel": "index",
        "ForMaskedLM": "mask",
    }
    return [
        Architecture(f"{prefix}{task}", config or f"{prefix}Config", settings, positions.get(task)) for task in tasks
    ]


_CLASSIFY, _TAG, _WRITE = "ForSequenceClassification", "ForTokenClassification", "ForCausalLM"

ARCHITECTURES: tuple[Architecture, ...] = (
    *_all([_CLASSIFY, _TAG, "ForMaskedLM"], "Bert", _BERT),
    *_all([_CLASSIFY, _TAG], "Roberta", {**_BERT, "pad_token_id": 1}),
    *_all([_CLASSIFY], "XLMRoberta", {**_BERT, "pad_token_id": 1}),
    *_all([_CLASSIFY], "Camembert", {**_BERT, "pad_token_id": 1}),
    *_all(
        [_CLASSIFY, _TAG],
        "DistilBert",
        {"dim": 16, "hidden_dim": 32, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 64},
    ),
    *_all([_CLASSIFY], "Electra", {**_BERT, "embedding_size": 12}),
    *_all([_CLASSIFY], "Albert", {**_BERT, "embedding_size": 12}),
    *_all(
        [_CLASSIFY],
        "DebertaV2",
        {
            **_BERT,
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 8,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "position_biased_input": False,
        },
    ),
    *_all([_CLASSIFY], "Deberta", {**_BERT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
    *_all(
        [_CLASSIFY, _TAG],
        "ModernBert",
        {
            **_WIDTH,
            "max_position_embeddings": 64,
            "global_attn_every_n_layers": 2,
            "local_attention": 8,
            "cls_token_id": 1,
            "sep_token_id": 2,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
    *_all([_CLASSIFY], "MPNet", {**_WIDTH, "max_position_embeddings": 64, "pad_token_id": 1}),
    *_all(
        [_CLASSIFY],
        "MobileBert",
        {
            **_BERT,
            "embedding_size": 12,
            "intra_bottleneck_size": 16,
            "num_feedforward_networks": 2,
            "true_hidden_size": 16,
        },
    ),
    *_all([_CLASSIFY], "SqueezeBert", {**_BERT, "embedding_size": 16}),
    *_all([_CLASSIFY], "Ernie", {**_BERT, "use_task_id": False}),
    *_all([_CLASSIFY], "RoFormer", _BERT),
    *_all([_CLASSIFY], "ConvBert", {**_BERT, "embedding_size": 16, "conv_kernel_size": 3}),
    *_all(
        [_CLASSIFY],
        "FNet",
        {
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "max_position_embeddings": 64,
            "type_vocab_size": 2,
        },
    ),
    # With as many landmarks as tokens it attends as others do. With fewer its code divides by a maximum over the batch,
    # which mixes the samples, so that none has an explanation of its own; and it takes no mask of transformers.
    *_all([_CLASSIFY], "Nystromformer", {**_BERT, "num_landmarks": LENGTH, "segment_means_seq_len": LENGTH}),
    *_all(
        [_CLASSIFY],
        "Flaubert",
        {"emb_dim": 16, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 64, "n_words": VOCABULARY},
    ),
    *_all(
        [_CLASSIFY],
        "XLM",
        {"emb_dim": 16, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 64, "n_words": VOCABULARY},
    ),
    *_all([_CLASSIFY], "XLNet", {"d_model": 16, "n_layer": 2, "n_head": 4, "d_inner": 32}),
    *_all(
        [_CLASSIFY],
        "Funnel",
        {"d_model": 16, "n_head": 4, "d_head": 4, "d_inner": 32, "block_sizes": [1, 1], "max_position_embeddings": 64},
    ),
    *_all(
        [_CLASSIFY, "LMHeadModel"],
        "GPT2",
        {"n_positions": 64, "n_embd": 16, "n_layer": 2, "n_head": 4, "bos_token_id": 1, "eos_token_id": 2},
    ),
    *_all(
        [_CLASSIFY, _WRITE], "GPTNeoX", {**_WIDTH, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2}
    ),
    *_all(
        [_WRITE],
        "GPTNeo",
        {
            "hidden_size": 16,
            "num_layers": 2,
            "num_heads": 4,
            "max_position_embeddings": 64,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 4,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
    *_all(
        [_WRITE],
        "GPTJ",
        {
            "n_positions": 64,
            "n_embd": 16,
            "n_layer": 2,
            "n_head": 4,
            "rotary_dim": 4,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
    *_all(
        [_WRITE],
        "OPT",
        {
            "hidden_size": 16,
            "ffn_dim": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
            "word_embed_proj_dim": 16,
            "pad_token_id": 1,
        },
    ),
    *_all([_WRITE], "Bloom", {"hidden_size": 16, "n_layer": 2, "n_head": 4, "bos_token_id": 1, "eos_token_id": 2}),
    *_all([_CLASSIFY, _WRITE], "Llama", _GROUPED),
    *_all([_CLASSIFY, _WRITE], "Mistral", {**_GROUPED, "sliding_window": 4}),
    *_all(
        [_CLASSIFY, _WRITE],
        "Qwen2",
        {**_GROUPED, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    ),
    *_all([_CLASSIFY, _WRITE], "Qwen3", _GROUPED),
    *_all([_CLASSIFY, _WRITE], "Gemma", _GROUPED),
    *_all([_CLASSIFY, _WRITE], "Gemma2", {**_GROUPED, "sliding_window": 4, "query_pre_attn_scalar": 4}),
    *_all([_WRITE], "Gemma3", {**_GROUPED, "sliding_window": 4, "query_pre_attn_scalar": 4}, "Gemma3TextConfig"),
    *_all([_CLASSIFY, _WRITE], "Phi", _GROUPED),
    *_all([_WRITE], "Phi3", {**_GROUPED, "bos_token_id": 1, "eos_token_id": 2}),
    *_all([_WRITE], "Olmo2", _GROUPED),
    *_all([_WRITE], "Granite", _GROUPED),
    *_all([_WRITE], "StableLm", _GROUPED),
    *_all([_WRITE], "Starcoder2", _GROUPED),
    *_all([_WRITE], "Cohere", _GROUPED),
    *_all([_WRITE], "SmolLM3", _GROUPED),
    *_all([_WRITE], "Mamba", {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "use_mambapy": False}),
    Architecture(
        "T5EncoderModel",
        "T5Config",
        {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2, "num_heads": 4},
        wrap=Pooled,
    ),
    Architecture(
        "MT5EncoderModel",
        "MT5Config",
        {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2, "num_heads": 4},
        wrap=Pooled,
    ),
    Architecture("BertModel", "BertConfig", _BERT, wrap=Pooled),
    Architecture(
        "MPNetModel", "MPNetConfig", {**_WIDTH, "max_position_embeddings": 64, "pad_token_id": 1}, wrap=Pooled
    ),
    Architecture(
        "CLIPTextModel", "CLIPTextConfig", {**_WIDTH, "max_position_embeddings": 64, "eos_token_id": 2}, wrap=Pooled
    ),
    Architecture("SiglipTextModel", "SiglipTextConfig", {**_WIDTH, "max_position_embeddings": 64}, wrap=Pooled),
)


def architecture(name: str) -> Architecture:
    """One of them by the name of its model's class."""
    return next(one for one in ARCHITECTURES if one.name == name)
