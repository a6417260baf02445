"""Finding a model on the hub or on disk, and refusing what can't work before its weights are
loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from safetensors import safe_open
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from nnsteer.errors import UserError
from nnsteer.model.chat import Chat
from nnsteer.program.identity import ModelId, fingerprint, weights_fingerprint
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


def find_model(
    source: str, revision: str | None = None, system: str | None = None, templated: bool = True
) -> ModelFiles:
    """Reads the config and tokenizer of a local folder or of a hub id (`org/name`, pinned by
    `revision`). Raises UserError when it is not there, or has no tokenizer or, if `templated`, no
    chat template."""
    folder = folder_of(source)
    local = folder.is_dir()
    if local and not (folder / "config.json").is_file():
        missing = "no config.json in it; give a folder written by save_pretrained"
        raise UserError(f"model folder {source}: {missing}")
    if not local and (source.count("/") != 1 or source.startswith((".", "/", "~"))):
        advice = "give a folder or an id like org/name"
        raise UserError(f"model {source}: no such folder, and not a hub id; {advice}")
    try:
        config = transformers.AutoConfig.from_pretrained(where(source), revision=revision)
    except (OSError, ValueError) as error:
        advice = "check the name and the network, or give a local folder"
        raise UserError(f"model {source}: {reason(error)}; {advice}") from error
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(where(source), revision=revision)
    except (OSError, ValueError, TypeError, AttributeError, ImportError) as error:
        raise no_tokenizer(source, reason(error)) from error
    if (tokenizer.pad_token_id is None and tokenizer.eos_token_id is None) or not len(tokenizer):
        raise no_tokenizer(source, "neither a pad nor an eos token")
    if templated and not tokenizer.chat_template:
        advice = "use a chat model, or add chat_template.jinja to the folder"
        raise UserError(f"model {source}: its tokenizer has no chat template; {advice}")
    commit = getattr(config, "_commit_hash", None)
    return ModelFiles(source, commit, config, Chat(tokenizer, templated, system))


def no_tokenizer(source: str, why: str) -> UserError:
    """The error for a model whose texts can't become tokens."""
    advice = "save one there with save_pretrained"
    return UserError(f"model {source}: no usable tokenizer ({why}); {advice}")


def folder_of(source: str) -> Path:
    """The folder that a model's name may mean."""
    return organism() if source == BUNDLED else Path(source).expanduser()


def where(source: str) -> str:
    """What transformers is told to load."""
    return str(folder_of(source)) if folder_of(source).is_dir() else source


def load_model(
    files: ModelFiles, dtype: str = "auto", device_map: str | None = None
) -> PreTrainedModel:
    """The weights. `dtype` auto is the checkpoint's own on an accelerator and float32 on a CPU,
    where half precision is slow; `device_map` is passed on to transformers (auto spreads a model
    over every GPU)."""
    on_gpu = torch.cuda.is_available()
    if dtype == "auto" and not on_gpu and device_map in (None, "cpu"):
        dtype = "float32"
    options = {"revision": files.revision, "dtype": DTYPES.get(dtype, dtype)}
    options |= {"device_map": device_map or ("cuda" if on_gpu else None)}
    try:
        return AutoModelForCausalLM.from_pretrained(where(files.name), **options)
    except (OSError, ValueError) as error:
        why = f"its weights can't be loaded ({reason(error)})"
        raise UserError(f"model {files.name}: {why}") from error


def identity_of(model: PreTrainedModel, name: str = "", revision: str | None = None) -> ModelId:
    """Which model one in memory is; without a name, by its config's."""
    name = name or model.config.name_or_path or type(model).__name__
    return ModelId(name, revision, weights_fingerprint(model))


def stored_identity(files: ModelFiles, skeleton: PreTrainedModel) -> ModelId:
    """The same by the weights in a folder, which are looked at but not loaded, if any are there.
    `skeleton` is the model without its weights."""
    stored: dict[str, torch.Tensor] = {}
    for file in sorted(folder_of(files.name).glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            stored |= {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
    names = [name for name, _ in skeleton.named_parameters()]
    complete = set(names) <= set(stored)
    weights = fingerprint((name, stored[name]) for name in names) if complete else ""
    return ModelId(files.name, files.revision, weights)


def reason(error: Exception) -> str:
    """The first sentence of a library's message, on one line."""
    return " ".join(str(error).split()).split(". ")[0][:200]
