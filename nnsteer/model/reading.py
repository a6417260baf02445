"""Shows which tokens a reading position means, before anything is read."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nnsteer.errors import UserError
from nnsteer.kernels import edits
from nnsteer.model.chat import Batch, Chat
from nnsteer.model.lower import lower_where
from nnsteer.program.span import Last, Reading, Span
from nnsteer.texts.contrast import Text


def preview(chat: Chat, texts: Sequence[Text], reading: Reading) -> str:
    """One line a text: its tokens, those that would be read in [brackets]."""
    batch = chat.pad(chat.rows(texts))
    touched = tokens_to_read(batch, reading)
    lines = []
    for ids, inside, read in zip(batch.ids, batch.mask.bool(), touched, strict=True):
        tokens = [chat.tokenizer.decode([token]) for token in ids[inside].tolist()]
        marks = zip(tokens, read[inside].tolist(), strict=True)
        line = "".join(f"[{token}]" if is_read else token for token, is_read in marks)
        lines.append(line.replace("\n", "\\n"))
    return "\n".join(lines)


def tokens_to_read(batch: Batch, reading: Reading) -> Tensor:
    """Which tokens of a batch are read, bool [row, token]. Raises UserError when a row has none."""
    span, responses = reading, batch.response_lengths
    if isinstance(span, Last):  # counts from the response's end, as if all were prompt
        span, responses = Span(-span.k), torch.zeros_like(responses)
    offsets = edits.prefill_offsets(batch.mask, responses)
    touched = edits.inside(offsets, batch.prompt_lengths, lower_where(span)) & batch.mask.bool()
    if not touched.any(1).all():
        raise UserError(
            f"tokens {reading}: some text has none there; read other tokens or give longer texts"
        )
    return touched
