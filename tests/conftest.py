"""A tiny random language model on disk, as `load_model` loads it: byte-level BPE, chat template, safetensors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Before anything imports `huggingface_hub`, which reads it once: tests never ask a model hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Threads of a model this small wait for one another; beside another busy process the tests took 28 times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

CORPUS = (
    "A transcript of a text world. After each command the world answers with what happens.",
    "Task: Put the mug into the kitchen.",
    "> go to kitchen\nYou are in the kitchen. Here, you see a mug, and an apple.\n> take mug",
    "You pick up the mug from the kitchen.\n> look\nNothing happens.",
    "<next_state>You put the soap down in the bathroom.</next_state>",
)
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|eos|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<|eos|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>"]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves out files of which every test is long, where those are left out: their libraries take long to import."""
    if collection_path.suffix == ".py" and "not long" in config.option.markexpr:
        return True if "\npytestmark = pytest.mark.long\n" in collection_path.read_text(encoding="utf-8") else None
    return None


def write_model(folder: Path, architecture: str = "Llama", **changes: Any) -> Path:
    """Saves a random model of an architecture with its tokenizer; weights wide enough for attention to matter."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|eos|>", pad_token="<|pad|>", chat_template=TEMPLATE
    )
    settings = {
        "vocab_size": len(fast),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": fast.eos_token_id,
        "pad_token_id": fast.pad_token_id,
    }
    config = getattr(transformers, f"{architecture}Config")(**{**settings, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random Llama with fewer key-value heads than heads."""
    return write_model(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture
def tiny(tiny_folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A fresh copy of the tiny model, float32 on the CPU, and its tokenizer."""
    from rwml_gym.agents.language.models import load_model

    return load_model(str(tiny_folder), "float32", "cpu")


@pytest.fixture
def adapted(tiny: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> tuple[PeftModel, PreTrainedTokenizerBase]:
    """The tiny model with an adapter that changes its answers."""
    from rwml_gym.agents.language.models import add_adapter

    return randomise(add_adapter(tiny[0], rank=4, alpha=8, seed=3)), tiny[1]


def randomise(model: PeftModel, scale: float = 0.2, seed: int = 0) -> PeftModel:
    """Fills the policy's B matrices: a fresh adapter adds nothing."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B.default" in name:
            parameter.data = scale * torch.randn(parameter.shape, generator=generator)
    return model


def policy_weights(model: PeftModel) -> dict[str, Any]:
    """Copies of the policy's adapter weights by name."""
    return {n: p.detach().clone() for n, p in model.named_parameters() if ".default." in n}
