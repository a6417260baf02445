"""Reading and steering as CAST's own code does, for numbers that were published with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from nnsteer import fit
from nnsteer.errors import UserError
from nnsteer.fit.activations import Activations
from nnsteer.model.runner import Runner
from nnsteer.program.direction import Directions, as_directions
from nnsteer.program.names import Method
from nnsteer.program.quirks import cast_skew
from nnsteer.program.site import Place
from nnsteer.program.span import PROMPT, Reading
from nnsteer.progress import Watch, ignore
from nnsteer.texts.contrast import ContrastSet

BATCH = 32  # the library's, which decides how much is padded


def directions(
    runner: Runner,
    contrast: ContrastSet,
    sites: Sequence[Place],
    span: Reading,
    method: Method,
    watch: Watch = ignore,
) -> Directions:
    """A direction per site as CAST's library has it: of length 1, read without the answer's header
    and with the pads, and moved one layer ahead, to what enters the block that it was read
    behind."""
    read = record_with_pads(without_header(runner), contrast, sites, span, watch)
    aligned = cast_skew(fit.method_named(method)(read))
    return as_directions([direction.unit() for direction in aligned.values()])


def without_header(runner: Runner) -> Runner:
    """The runner that reads texts without the template's header of the answer, as the library does;
    when it checks a condition, the header is there."""
    return replace(runner, chat=replace(runner.chat, generation_prompt=False))


def record_with_pads(
    runner: Runner,
    contrast: ContrastSet,
    sites: Sequence[Place],
    span: Reading,
    watch: Watch = ignore,
) -> Activations:
    """Mean states as the library takes them: positive and negative texts in turn, 32 at a time,
    padded with token 0 on the tokenizer's own side, the mean over every column of the batch; where
    responses are read, over as many last columns as the first response has tokens. Raises UserError
    on a server, where the library's way is not to be had."""
    if runner.remote not in (None, "local"):
        raise UserError(
            "as published: pads are pooled by a model that is here; "
            "leave --remote or --as-published out"
        )
    pairs = zip(contrast.positive, contrast.negative, strict=True)
    texts = runner.chat.rows([text for pair in pairs for text in pair])
    last = 0 if span == PROMPT else len(texts[0][1])
    means: dict[Place, list[Tensor]] = {site: [] for site in sites}
    norms: dict[Place, list[Tensor]] = {site: [] for site in sites}
    for start in range(0, len(texts), BATCH):
        rows = [[*prompt, *response] for prompt, response in texts[start : start + BATCH]]
        ids, mask = padded(rows, runner.chat.tokenizer.padding_side == "left")
        with torch.no_grad():
            out = runner.hf(
                ids.to(runner.hf.device),
                attention_mask=mask.to(runner.hf.device),
                output_hidden_states=True,
            )
        for site in sites:
            states = out.hidden_states[site.layer + 1][:, -last:].float().cpu()  # all for 0
            means[site].append(states.mean(1))
            norms[site].append(states.norm(dim=-1).mean(1))
        watch(len(rows))
    every = {site: torch.cat(batches) for site, batches in means.items()}
    lengths = {site: torch.cat(batches) for site, batches in norms.items()}
    return Activations(
        positive={site: rows[::2] for site, rows in every.items()},
        negative={site: rows[1::2] for site, rows in every.items()},
        norms={site: (rows[::2], rows[1::2]) for site, rows in lengths.items()},
        span=span,
        model=runner.model,
        data=contrast.fingerprint(),
    )


def padded(rows: Sequence[Sequence[int]], left: bool) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, [row, token]."""
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        start = width - len(row) if left else 0
        ids[i, start : start + len(row)] = torch.tensor(row)
        mask[i, start : start + len(row)] = 1
    return ids, mask
