"""What runs inside a trace: masks, the edit kernel and condition scores, as plain functions of tensors.

This is the only file that travels to a server, by source, so it imports torch alone and uses no decorator, no default
object and no type of nnsteer. Shapes: rows are prompts, tokens are columns of the left-padded batch.
"""

from __future__ import annotations

import torch


def hidden(output):
    """The residual stream in what a module returns: some families return a tensor, some a tuple."""
    return output if isinstance(output, torch.Tensor) else output[0]


def put(output, h):
    """The module's output with its residual stream replaced by `h`."""
    return h if isinstance(output, torch.Tensor) else (h, *output[1:])


def prefill_offsets(mask, response_lengths):
    """Where each token of a left-padded batch lies from the end of its row's prompt, [row, token]: the prompt's last
    token is -1, the first token after the prompt 0."""
    width = mask.shape[1]
    return torch.arange(width, device=mask.device) - width + response_lengths.to(mask.device)[:, None]


def decode_offsets(mask, step):
    """The same for the one token that decode step `step` (1, 2, ...) feeds in, [row, 1]."""
    return torch.full((mask.shape[0], 1), step - 1, device=mask.device)


def inside(offsets, first, stop):
    """Which offsets lie in the span [first, stop); None leaves that end open. Bool, the shape of `offsets`."""
    touched = torch.ones_like(offsets, dtype=torch.bool)
    if first is not None:
        touched = touched & (offsets >= first)
    if stop is not None:
        touched = touched & (offsets < stop)
    return touched


def mean_over(h, touched):
    """Mean of `h` [row, token, hidden] over the touched tokens [row, token], in fp32: [row, hidden]."""
    weight = touched.to(h.device).float()[..., None]
    total = torch.where(weight > 0, h.float(), torch.zeros((), device=h.device)).sum(1)
    return total / weight.sum(1)


def kernel(h, edit):
    """h - ((h - center) @ rightT) @ left + shift, in fp32 where there is a projection; [row, token, hidden]."""
    if edit["right"] is None:
        return h + edit["shift"].to(h)
    x = h.float()
    left, right, center, shift = (edit[name].to(x) for name in ("left", "right", "center", "shift"))
    with torch.autocast(h.device.type, enabled=False):
        return (x - ((x - center) @ right.mT) @ left + shift).to(h.dtype)


def apply(h, edits, offsets, mask, verdicts):
    """`h` after every edit of one site. An edit touches a token when its span, the pad mask, its rows and the verdict of
    its condition all say so; other tokens keep their bits."""
    for edit in edits:
        touched = inside(offsets, edit["first"], edit["stop"]) & mask.bool()
        if edit["rows"] is not None:
            touched = touched & edit["rows"].to(mask.device)[:, None]
        if edit["condition"] is not None:
            touched = touched & verdicts[edit["condition"]].to(mask.device)[:, None]
        h = torch.where(touched.to(h.device)[..., None], kernel(h, edit), h)
    return h


def score(h, condition, offsets, mask):
    """How strongly each row shows the condition's direction, fp32 [row]: the cosine of the pooled state with the
    direction, or CAST's sim(h, tanh(proj_c h)) (section 3.1), which does not depend on the direction's sign."""
    pooled = mean_over(h, inside(offsets, condition["first"], condition["stop"]) & mask.bool())
    c = condition["vector"].to(pooled)
    other = c.expand_as(pooled)
    if condition["score"] == "cast":
        other = torch.tanh((pooled * c).sum(-1, keepdim=True) / (c * c).sum() * c)
    return torch.nn.functional.cosine_similarity(pooled, other, dim=-1)


def verdict(scores, condition):
    """Whether the condition holds, bool [row]. `below` is the exact complement of `above`."""
    return scores > condition["threshold"] if condition["above"] else scores <= condition["threshold"]


def gumbel(logits, temperature, seed, row_ids, step):
    """Logits whose argmax is a sample at `temperature`: each row has noise of its own, drawn from the seed, its number in
    the call and the step, so that neither the batch nor the machine it is in changes the sample. [row, 1, vocab]"""
    noise = torch.empty(logits.shape[0], logits.shape[-1])
    for i, row in enumerate(row_ids):
        generator = torch.Generator().manual_seed(((seed * 1_000_003 + row) * 65_537 + step) % (2**63))
        noise[i].exponential_(generator=generator)
    return logits.float() / temperature - noise.log().to(logits.device)[:, None]


def token_losses(logits, ids):
    """Negative log-likelihood in nats of each token given those before it, [row, token - 1]."""
    return torch.nn.functional.cross_entropy(logits[:, :-1].float().mT, ids[:, 1:].to(logits.device), reduction="none")
