"""Shows which tokens a reading position means, before anything is read."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from nnsteer.errors import UserError
from nnsteer.kernels import edits
from nnsteer.model.chat import Batch, Chat
from nnsteer.model.lower import lower_where
from nnsteer.program.span import Last, Reading
from nnsteer.texts.contrast import Text


def preview(chat: Chat, texts: Sequence[Text], reading: Reading) -> str:
    """One line a text: its tokens, those that would be read in [brackets]."""
    batch = chat.pad(chat.rows(texts))
    touched = tokens_to_read(batch, reading)
    lines = []
    for ids, mask, read in zip(batch.ids.tolist(), batch.mask.tolist(), touched.tolist(), strict=True):
        tokens = [chat.tokenizer.decode([i]) for i in ids]
        shown = [f"[{t}]" if r else t for t, m, r in zip(tokens, mask, read, strict=True) if m]
        lines.append("".join(shown).replace("\n", "\\n"))
    return "\n".join(lines)


def tokens_to_read(batch: Batch, reading: Reading) -> Tensor:
    """Which tokens of a batch are read, bool [row, token]. Raises UserError when a row has none."""
    if isinstance(reading, Last):
        from_end = edits.prefill_offsets(batch.mask, batch.response_lengths * 0)
        where, offsets = {"first": -reading.k, "stop": None, "at": None}, from_end
    else:
        where, offsets = lower_where(reading), edits.prefill_offsets(batch.mask, batch.response_lengths)
    touched = edits.inside(offsets, batch.prompt_lengths, where) & batch.mask.bool()
    if not touched.any(1).all():
        raise UserError(f"tokens {reading}: some text has none there; read other tokens or give longer texts")
    return touched
