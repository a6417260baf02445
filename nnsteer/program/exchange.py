"""Directions in other projects' files: the JSON of CAST's library, and the control vectors of repeng and llama.cpp."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from nnsteer.errors import UserError
from nnsteer.program.direction import AnyDirections, Direction, Directions, as_directions
from nnsteer.program.identity import ModelId
from nnsteer.program.site import Site
from nnsteer.program.span import Last, Reading
from nnsteer.writing import replacing

LAST_TOKEN = Last()  # both libraries read it unless told otherwise; neither's file says
ARCHITECTURE = "controlvector"
TENSOR = "direction."


def save_svec(path: str | Path, directions: AnyDirections, model_type: str) -> None:
    """Writes directions at block outputs for CAST's library, which opens only names that end in .svec. `model_type` is
    transformers' name of the architecture (`config.model_type`). Lengths are kept: that library's own vectors have length 1.
    Its loader asks for a table of explained variances, which a direction doesn't keep and steering doesn't need: each is null.
    Raises UserError for a direction anywhere else."""
    vectors = by_block(directions, 0, "a .svec holds directions at block outputs alone; fit it at block_out, or leave it out")
    rows = {str(layer): vector.tolist() for layer, vector in vectors.items()}
    content = {"model_type": model_type, "directions": rows, "explained_variances": dict.fromkeys(rows)}
    with replacing(path) as partial:
        partial.write_text(json.dumps(content))


def load_svec(path: str | Path, model: ModelId, span: Reading = LAST_TOKEN, site_of: Callable[[int], Site] = Site) -> Directions:
    """CAST's directions by site, of length 1, so that a strength is an absolute length. v_l was read from what leaves block l
    (for the last block, after the final norm) and is placed there; `site_of` places it elsewhere, and `compat.cast_skew` moves
    all to where that library writes them.

    The file doesn't say which weights, tokens or data it came from. The caller vouches for `model` and `span`; `data` is a hash
    of the file and `origin` zeros [hidden]: give a measured one (`with_origin`) before an affine edit. Explained variances are
    dropped. Raises UserError when the file holds something else."""
    try:
        content = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: can't be read as JSON ({error}); give a .svec written by activation-steering") from error
    rows = content.get("directions") if isinstance(content, dict) else None
    return from_rows(path, rows, "svec", model, span, site_of)


def save_gguf(path: str | Path, directions: AnyDirections, model_hint: str) -> None:
    """Writes a control vector, in fp32, for repeng and llama.cpp, which add direction.N to every token of what leaves block N
    (0-based). `model_hint` names the architecture. Raises UserError for a direction anywhere else or at block 0, or without
    the gguf package."""
    gguf = import_gguf()
    limits = (
        "llama.cpp adds to what leaves a block, and refuses block 0; fit it at block_out of block 1 or later, or leave it out"
    )
    vectors = by_block(directions, 1, limits)
    with replacing(path) as partial:
        writer = gguf.GGUFWriter(partial, ARCHITECTURE)
        writer.add_string(f"{ARCHITECTURE}.model_hint", model_hint)
        writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(vectors))
        for layer, vector in vectors.items():
            writer.add_tensor(f"{TENSOR}{layer}", vector.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def load_gguf(path: str | Path, model: ModelId, span: Reading = LAST_TOKEN) -> Directions:
    """A control vector's directions by site: direction.N at the output of block N (0-based), and direction.0, which repeng may
    write and llama.cpp refuses, at that of block 0. The caller vouches for `model` and `span`, and `data` and `origin` stand in,
    as in `load_svec`. Raises UserError when the file holds something else, or without the gguf package."""
    gguf = import_gguf()
    try:
        reader = gguf.GGUFReader(path)
    except (OSError, ValueError, IndexError, KeyError) as error:  # it doesn't check what it parses
        raise UserError(f"{path}: can't be read as gguf ({error}); give a control vector of repeng or llama.cpp") from error
    field = reader.get_field("general.architecture")
    found = None if field is None else field.contents()
    if found != ARCHITECTURE:
        raise UserError(f"{path}: expected architecture {ARCHITECTURE}, found {found}; give a control vector, not a model")
    for tensor in reader.tensors:
        if not tensor.name.startswith(TENSOR) or tensor.tensor_type != gguf.GGMLQuantizationType.F32:
            given = f"{tensor.name} in {tensor.tensor_type.name}"
            raise UserError(f"{path}: expected tensors {TENSOR}N in F32, found {given}; write the control vector again in fp32")
    rows = {tensor.name.removeprefix(TENSOR): tensor.data.tolist() for tensor in reader.tensors}
    return from_rows(path, rows, "gguf", model, span, Site)


def import_gguf() -> ModuleType:
    """The gguf package, which only these two functions need."""
    try:
        import gguf
    except ImportError as error:
        raise UserError('control vectors need the gguf package, which is not installed; pip install "nnsteer[gguf]"') from error
    return gguf


def by_block(directions: AnyDirections, first: int, limits: str) -> dict[int, Tensor]:
    """The vectors [hidden] in fp32, by block. Raises UserError, giving the format's `limits`, for a direction elsewhere than at
    the output of block `first` or a later one."""
    vectors: dict[int, Tensor] = {}
    for direction in as_directions(directions).values():
        site = direction.site
        if not isinstance(site, Site) or site.stream != "block_out" or site.layer < first:
            raise UserError(f"{site}: {limits}")
        vectors[site.layer] = direction.vector.float()
    if not vectors:
        raise UserError("no directions to write; give at least one")
    return vectors


def from_rows(
    path: str | Path, rows: Any, method: str, model: ModelId, span: Reading, site_of: Callable[[int], Site]
) -> Directions:
    """Directions from a table of a block's number -> list of floats [hidden]."""
    if not isinstance(rows, dict) or not rows:
        raise UserError(f"{path}: no directions in it; give a file with at least one")
    vectors = {layer: as_vector(path, layer, row) for layer, row in rows.items()}
    if len(lengths := {len(vector) for vector in vectors.values()}) > 1:
        raise UserError(f"{path}: directions of lengths {sorted(lengths)}; expected one, the model's hidden size; write it again")
    data = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
    directions: dict[Site, Direction] = {}
    for layer, vector in vectors.items():
        site = site_of(int(layer))
        directions[site] = Direction(vector, site, span, method, torch.zeros_like(vector), model, data)
    return Directions(directions)


def as_vector(path: str | Path, layer: str, row: Any) -> Tensor:
    """A row of the table [hidden], in fp32."""
    if not layer.isdecimal():
        raise UserError(f"{path}: direction {layer!r}; expected a block's number, from 0 up; write it again with such keys")
    try:
        vector = torch.tensor(row, dtype=torch.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path}: direction {layer} is no list of numbers ({error}); write it again") from error
    if vector.dim() != 1 or not len(vector) or not vector.isfinite().all():
        shape = list(vector.shape)
        raise UserError(f"{path}: direction {layer} has shape {shape}; expected [hidden], all finite; write it again")
    return vector
