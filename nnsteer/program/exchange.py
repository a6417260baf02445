"""Directions in other projects' files: the JSON of CAST's library, and the control vectors of
repeng and llama.cpp."""

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
SVEC_LIMITS = (
    "a .svec holds directions at block outputs alone; fit it at block_out, or leave it out"
)
GGUF_LIMITS = (
    "llama.cpp adds to what leaves a block, and refuses block 0; "
    "fit it at block_out of block 1 or later, or leave it out"
)

SiteOf = Callable[[int], Site]
"""The site for a block's number."""


def save_svec(path: str | Path, directions: AnyDirections, model_type: str) -> None:
    """Writes directions at block outputs for CAST's library, which opens only names that end in
    .svec. `model_type` is transformers' name of the architecture (`config.model_type`). Lengths are
    kept: that library's own vectors have length 1. Its loader asks for explained variances, which a
    direction doesn't keep: each is null. Raises UserError for a direction anywhere else."""
    vectors = by_block(directions, 0, SVEC_LIMITS)
    rows = {str(layer): vector.tolist() for layer, vector in vectors.items()}
    variances = dict.fromkeys(rows)
    content = {"model_type": model_type, "directions": rows, "explained_variances": variances}
    with replacing(path) as partial:
        partial.write_text(json.dumps(content))


def load_svec(
    path: str | Path, model: ModelId, span: Reading = LAST_TOKEN, site_of: SiteOf = Site
) -> Directions:
    """CAST's directions by site, of length 1, so that a strength is an absolute length. v_l was
    read from what leaves block l (for the last block, after the final norm) and is placed there;
    `site_of` places it elsewhere, and `quirks.cast_skew` where that library writes it.

    The file doesn't say which weights, tokens or data it came from. The caller vouches for `model`
    and `span`; `data` is a hash of the file and `origin` zeros [hidden]: give a measured one
    (`with_origin`) before an affine edit. Explained variances are dropped. Raises UserError when
    the file holds something else."""
    try:
        content = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        remedy = "give a .svec written by activation-steering"
        raise UserError(f"{path}: can't be read as JSON ({error}); {remedy}") from error
    rows = content.get("directions") if isinstance(content, dict) else None
    directions = from_rows(path, rows, "svec", model, span)
    placed = [direction.moved(site_of(site.layer)) for site, direction in directions.items()]
    return Directions({direction.site: direction for direction in placed})


def save_gguf(path: str | Path, directions: AnyDirections, model_hint: str) -> None:
    """Writes a control vector, in fp32, for repeng and llama.cpp, which add direction.N to every
    token of what leaves block N (0-based). `model_hint` names the architecture. Raises UserError
    for a direction anywhere else or at block 0, or without the gguf package."""
    gguf = import_gguf()
    vectors = by_block(directions, 1, GGUF_LIMITS)
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
    """A control vector's directions by site: direction.N at the output of block N (0-based), and
    direction.0, which repeng may write and llama.cpp refuses, at that of block 0. The caller
    vouches for `model` and `span`, and `data` and `origin` stand in, as in `load_svec`. Raises
    UserError when the file holds something else, or without the gguf package."""
    gguf = import_gguf()
    try:
        reader = gguf.GGUFReader(path)
    except (OSError, ValueError, IndexError, KeyError) as error:  # it doesn't check what it parses
        remedy = "give a control vector of repeng or llama.cpp"
        raise UserError(f"{path}: can't be read as gguf ({error}); {remedy}") from error
    field = reader.get_field("general.architecture")
    architecture = None if field is None else field.contents()
    if architecture != ARCHITECTURE:
        mistake = f"expected architecture {ARCHITECTURE}, found {architecture}"
        raise UserError(f"{path}: {mistake}; give a control vector, not a model")
    for tensor in reader.tensors:
        fp32 = tensor.tensor_type == gguf.GGMLQuantizationType.F32
        if not fp32 or not tensor.name.startswith(TENSOR):
            mistake = f"found {tensor.name} in {tensor.tensor_type.name}"
            remedy = "write the control vector again in fp32"
            raise UserError(f"{path}: expected tensors {TENSOR}N in F32, {mistake}; {remedy}")
    rows = {tensor.name.removeprefix(TENSOR): tensor.data.tolist() for tensor in reader.tensors}
    return from_rows(path, rows, "gguf", model, span)


def import_gguf() -> ModuleType:
    """The gguf package, which only control vectors need."""
    try:
        import gguf
    except ImportError as error:
        missing = "control vectors need the gguf package, which is not installed"
        raise UserError(f'{missing}; pip install "nnsteer[gguf]"') from error
    return gguf


def by_block(directions: AnyDirections, first: int, limits: str) -> dict[int, Tensor]:
    """The vectors [hidden] in fp32, by block. Raises UserError, giving the format's `limits`, for a
    direction elsewhere than at the output of block `first` or a later one."""
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
    path: str | Path, rows: Any, method: str, model: ModelId, span: Reading
) -> Directions:
    """Directions at block outputs from a table of a block's number -> list of floats [hidden]."""
    if not isinstance(rows, dict) or not rows:
        raise UserError(f"{path}: no directions in it; give a file with at least one")
    vectors = {layer: as_vector(path, layer, row) for layer, row in rows.items()}
    lengths = sorted({len(vector) for vector in vectors.values()})
    if len(lengths) > 1:
        expected = "expected one, the model's hidden size"
        raise UserError(f"{path}: directions of lengths {lengths}; {expected}; write it again")
    data = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
    directions: dict[Site, Direction] = {}
    for layer, vector in vectors.items():
        site, origin = Site(int(layer)), torch.zeros_like(vector)
        directions[site] = Direction(vector, site, span, method, origin, model, data)
    return Directions(directions)


def as_vector(path: str | Path, layer: str, row: Any) -> Tensor:
    """A row of the table [hidden], in fp32."""
    name = f"{path}: direction"
    if not layer.isdecimal():
        expected = "expected a block's number, from 0 up"
        raise UserError(f"{name} {layer!r}; {expected}; write it again with such keys")
    try:
        vector = torch.tensor(row, dtype=torch.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"{name} {layer} is no list of numbers ({error}); write it again"
        ) from error
    if vector.dim() != 1 or not len(vector) or not vector.isfinite().all():
        mistake = f"has shape {list(vector.shape)}; expected [hidden], all finite"
        raise UserError(f"{name} {layer} {mistake}; write it again")
    return vector
