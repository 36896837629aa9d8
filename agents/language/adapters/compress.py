"""Smaller LoRA adapters: the best approximation of lower rank, in half precision, for an adapter that travels."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from rwml_gym.agents.language.adapters.outside import ADAPTER_FILES, read_adapter
from rwml_gym.errors import InvalidConfigError
from rwml_gym.files import read_json, write_json
from rwml_gym.hashes import seal

__all__ = ["compress_adapter"]


def compress_adapter(source: Path, destination: Path, rank: int, dtype: torch.dtype = torch.float16) -> float:
    """Write an adapter of lower rank whose change of each weight matrix is the nearest to the source's.

    Nearest in the Frobenius norm: the truncated singular value decomposition of B·A (Eckart and Young, 1936). PEFT
    loads the result like any other adapter.

    Args:
        source: Folder of a plain LoRA adapter of one rank.
        destination: Folder of the result.
        rank: Its rank.
        dtype: Data type of its weights on disk.

    Returns:
        The share of the squared change of the weights that is kept, over all matrices.

    Raises:
        InvalidConfigError: The adapter is of another kind, or its rank is not above `rank`.
        ValueError: A file of the source is missing or damaged.
    """
    _, weights = read_adapter(source)
    config = read_json(source / ADAPTER_FILES[1])
    plain = config["peft_type"] == "LORA" and not (config.get("use_dora") or config.get("use_rslora"))
    names = sorted(name.removesuffix("lora_A.weight") for name in weights if name.endswith("lora_A.weight"))
    if not plain or config.get("rank_pattern") or config.get("alpha_pattern") or len(weights) != 2 * len(names):
        raise InvalidConfigError(f"Expected a plain LoRA adapter of one rank, actual: another in {str(source)!r}.")
    if not 1 <= rank < config["r"]:
        raise InvalidConfigError(f"Expected a rank from 1 to {config['r'] - 1}, actual: {rank}. Choose a lower one.")
    smaller: dict[str, Tensor] = {}
    kept, whole = 0.0, 0.0
    for name in names:
        a, b = (weights[f"{name}lora_{side}.weight"].double() for side in "AB")
        (qb, rb), (qa, ra) = torch.linalg.qr(b), torch.linalg.qr(a.T)
        u, s, vh = torch.linalg.svd(rb @ ra.T)
        root = s[:rank].sqrt()
        smaller[f"{name}lora_B.weight"] = (qb @ u[:, :rank] * root).to(dtype).contiguous()
        smaller[f"{name}lora_A.weight"] = (root[:, None] * vh[:rank] @ qa.T).to(dtype).contiguous()
        kept, whole = kept + float(s[:rank].square().sum()), whole + float(s.square().sum())
    destination.mkdir(parents=True, exist_ok=True)
    save_file(smaller, destination / ADAPTER_FILES[0], metadata={"format": "pt"})
    # The scale alpha / r stays.
    write_json(
        destination / ADAPTER_FILES[1], {**config, "r": rank, "lora_alpha": config["lora_alpha"] * rank / config["r"]}
    )
    seal(destination, *ADAPTER_FILES)
    return kept / whole if whole else 1.0
