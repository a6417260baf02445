"""Finding a model on the hub or on disk, and refusing what can't work before its weights are loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PretrainedConfig, PreTrainedModel

from nnsteer.errors import UserError
from nnsteer.model.chat import Chat
from nnsteer.program.identity import fingerprint
from nnsteer.texts.bundled import organism

BUNDLED = "nnsteer:organism"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class ModelFiles:
    """A model of which only the config and the tokenizer have been read."""

    name: str
    """A folder's path or a hub id."""
    revision: str | None
    """The commit that the hub answered with; None for a folder."""
    config: PretrainedConfig
    chat: Chat


def find_model(source: str, revision: str | None = None, system: str | None = None, templated: bool = True) -> ModelFiles:
    """Reads the config and tokenizer of a local folder or of a hub id (`org/name`, pinned by `revision`). Raises UserError when
    it is not there, or has no tokenizer or, if `templated`, no chat template."""
    folder = folder_of(source)
    local = folder.is_dir()
    if local and not (folder / "config.json").is_file():
        raise UserError(f"model folder {source}: no config.json in it; give a folder written by save_pretrained")
    if not local and (source.count("/") != 1 or source.startswith((".", "/", "~"))):
        raise UserError(f"model {source}: no such folder, and not a hub id; give a folder or an id like org/name")
    try:
        config = AutoConfig.from_pretrained(where(source), revision=revision)
    except (OSError, ValueError) as error:
        raise UserError(f"model {source}: {reason(error)}; check the name and the network, or give a local folder") from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(where(source), revision=revision)
    except (OSError, ValueError, TypeError, AttributeError, ImportError) as error:
        raise UserError(f"model {source}: no usable tokenizer ({reason(error)}); save one there with save_pretrained") from error
    if (tokenizer.pad_token_id is None and tokenizer.eos_token_id is None) or not len(tokenizer):
        raise UserError(
            f"model {source}: no usable tokenizer (neither a pad nor an eos token); save one there with save_pretrained"
        )
    if templated and not tokenizer.chat_template:
        raise UserError(
            f"model {source}: its tokenizer has no chat template; use a chat model, or add chat_template.jinja to the folder"
        )
    return ModelFiles(source, getattr(config, "_commit_hash", None), config, Chat(tokenizer, templated, system))


def folder_of(source: str) -> Path:
    """The folder that a model's name may mean."""
    return organism() if source == BUNDLED else Path(source).expanduser()


def where(source: str) -> str:
    """What transformers is told to load."""
    return str(folder_of(source)) if folder_of(source).is_dir() else source


def load_model(files: ModelFiles, dtype: str = "auto", device_map: str | None = None) -> PreTrainedModel:
    """The weights. `dtype` auto is the checkpoint's own on an accelerator and float32 on a CPU, where half precision is slow;
    `device_map` is passed on to transformers (auto spreads a model over every GPU)."""
    on_cpu = device_map in (None, "cpu") and not torch.cuda.is_available()
    chosen = ("float32" if on_cpu else "auto") if dtype == "auto" else DTYPES[dtype]
    placed = device_map or ("cuda" if torch.cuda.is_available() else None)
    try:
        return AutoModelForCausalLM.from_pretrained(where(files.name), revision=files.revision, dtype=chosen, device_map=placed)
    except (OSError, ValueError) as error:
        raise UserError(f"model {files.name}: its weights can't be loaded ({reason(error)})") from error


def stored_fingerprint(files: ModelFiles, skeleton: PreTrainedModel) -> str:
    """`identity.weights_fingerprint` of the weights in a folder, which are looked at but not loaded; "" where there are none.
    `skeleton` is the model without its weights."""
    stored: dict[str, torch.Tensor] = {}
    for file in sorted(folder_of(files.name).glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            stored |= {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
    names = [name for name, _ in skeleton.named_parameters()]
    return fingerprint((name, stored[name]) for name in names) if set(names) <= set(stored) else ""


def reason(error: Exception) -> str:
    """The first sentence of a library's message, on one line."""
    return " ".join(str(error).split()).split(". ")[0][:200]
