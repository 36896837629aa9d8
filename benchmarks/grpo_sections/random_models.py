"""Randomly initialised models of known shapes, for speed, with a tokenizer: nothing is downloaded."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from common import MODEL, NEVER
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, PreTrainedTokenizerFast, Qwen2Config

__all__ = ["SHAPES", "add_options", "chosen_model", "random_model"]

_TINY = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 512,
}
SHAPES: dict[str, tuple[type[PretrainedConfig], dict[str, int]]] = {
    "SmolLM2-135M": (
        LlamaConfig,
        {
            "hidden_size": 576,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "intermediate_size": 1536,
            "vocab_size": 49152,
        },
    ),
    "Qwen2.5-0.5B": (
        Qwen2Config,
        {
            "hidden_size": 896,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "intermediate_size": 4864,
            "vocab_size": 151936,
        },
    ),
    "tiny-llama": (LlamaConfig, _TINY),
    "tiny-qwen2": (Qwen2Config, _TINY),
}
_TEXT = (
    "A transcript of a text world. After each command the world answers with what happens.",
    "Task: Put the mug into the kitchen.\n> go to kitchen\nYou are in the kitchen. Here, you see a mug, and an apple.",
    "> take mug\nYou pick up the mug.\n> look\nNothing happens. You are in the bedroom. You carry the soap.",
    "> go to bathroom\nYou are in the bathroom. Here, you see nothing.\n> put soap\nYou put the soap down.",
)


def random_model(name: str, folder: Path, dtype: str) -> str:
    """Write a model of a shape of `SHAPES` and its tokenizer, unless they are there; return the folder.

    The token that ends a text is beyond the model's vocabulary, so no text ends by chance.
    """
    target = folder / name
    if target.is_dir():
        return str(target)
    kind, sizes = SHAPES[name]
    tokenizer = _tokenizer(sizes["vocab_size"])
    settings: dict[str, Any] = {
        **sizes,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": None,  # the tokenizer's
        "pad_token_id": tokenizer.pad_token_id,
    }
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(kind(**settings), dtype=getattr(torch, dtype))
    partial = folder / f".{name}"
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    os.replace(partial, target)
    return str(target)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which model is loaded."""
    parser.add_argument("--model", default=MODEL, help="see load_model; with --random, a folder to write it to")
    parser.add_argument("--random", choices=SHAPES, help="a model of this shape with random weights")


def chosen_model(options: argparse.Namespace) -> str:
    """Return the name of the model that the options ask for, written first if its weights are random."""
    if options.random is None:
        return str(options.model)
    return random_model(options.random, Path(options.model), options.dtype)


def _tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with a few merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=min(400, vocabulary),
        special_tokens=["<|pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT, trainer)
    learnt = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(merge) for merge in learnt["merges"]]
    whole = Tokenizer(models.BPE(vocab={**learnt["vocab"], NEVER: vocabulary}, merges=merges))
    whole.pre_tokenizer = tokenizer.pre_tokenizer
    whole.decoder = decoders.ByteLevel()
    whole.add_special_tokens([AddedToken(NEVER, special=True), AddedToken("<|pad|>", special=True)])
    return PreTrainedTokenizerFast(tokenizer_object=whole, eos_token=NEVER, pad_token="<|pad|>")


if __name__ == "__main__":  # for a section that has no script of its own
    print(json.dumps({"model": random_model(sys.argv[1], Path(sys.argv[2]), sys.argv[3])}))
