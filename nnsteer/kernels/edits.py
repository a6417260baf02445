"""What runs inside a trace: masks, the edit kernel and condition scores, as plain functions of tensors.

This file travels to a server, by source (as `fit/kernels.py` does), so it imports torch alone and uses no decorator, no default
object and no type of nnsteer. Shapes: rows are prompts, tokens are columns of the padded batch.
"""

from __future__ import annotations

import torch


def hidden(output):
    """The states in what a module returns: some families return a tensor, some a tuple."""
    return output if isinstance(output, torch.Tensor) else output[0]


def put(output, h):
    """The module's output with its states replaced by `h`."""
    return h if isinstance(output, torch.Tensor) else (h, *output[1:])


def states(module, is_input):
    """What enters (`is_input`) or leaves a module, [row, token, hidden]. For modules that a trace hands out."""
    return hidden(module.input if is_input else module.output)


def edit(module, visit, tokens, verdicts):
    """Makes a visit's edits on a module that a trace hands out: read, compute, assign."""
    output = module.input if visit["input"] else module.output
    new = put(output, apply(hidden(output), visit["edits"], tokens, verdicts))
    if visit["input"]:
        module.input = new
    else:
        module.output = new


def run_once(module, rows, back):
    """Has a block that a trace hands out run on the `rows` [kind] of its batch alone, and gives each row its kind's output,
    `back` [row]. The block runs on every row where its inputs are not known to be cut safely."""
    args, kwargs = module.inputs
    if has_rows((*args, *kwargs.values()), len(back)):
        module.inputs = with_rows(args, rows, len(back)), {k: with_rows(v, rows, len(back)) for k, v in kwargs.items()}
        module.output = with_rows(module.output, back, len(rows))


def has_rows(value, count):
    """Whether a block's inputs can be cut: tensors with `count` rows, or one for all, and what holds no states of rows. A table
    that the block writes for a later one can't."""
    if isinstance(value, torch.Tensor):
        return value.dim() < 2 or value.shape[0] in (1, count)
    if isinstance(value, (tuple, list)):
        return all(has_rows(item, count) for item in value)
    return value is None or isinstance(value, (bool, int, float, str)) or hasattr(value, "get_seq_length")  # a cache


def with_rows(value, rows, count):
    """What enters or leaves a block with some of its `count` rows, or some of them again."""
    if isinstance(value, torch.Tensor):
        return value[rows.to(value.device)] if value.dim() > 1 and value.shape[0] == count else value
    return type(value)([with_rows(item, rows, count) for item in value]) if type(value) in (tuple, list) else value


def run_on_tokens(module, first, stop):
    """Has a module that works on each token by itself, as an MLP, run on some of a batch's tokens; the others get zeros. One that
    takes more than the states runs on all."""
    args, kwargs = module.inputs
    if len(args) == 1 and not kwargs:
        h = module.input
        module.input = h[:, first:stop].contiguous()
        output = module.output
        every = torch.zeros_like(h)
        every[:, first:stop] = hidden(output)
        module.output = put(output, every)


def prefill_offsets(mask, response_lengths):
    """Where each token of a padded batch lies from the end of its row's prompt, [row, token]: the prompt's last token is
    -1, the first token after the prompt 0. Pads may be on either side."""
    place = mask.cumsum(1) - 1
    lengths = mask.sum(1, keepdim=True) - response_lengths.to(mask.device)[:, None]
    return place - lengths


def decode_offsets(mask, step):
    """The same for the one token that decode step `step` (1, 2, ...) feeds in, [row, 1]."""
    return torch.full((mask.shape[0], 1), step - 1, device=mask.device)


def tokens_of(offsets, lengths, mask):
    """The tokens of one forward pass: where they lie, the rows' prompt lengths, the pads, and which of them were found to be
    touched by what, so that this is worked out once a pass and not once a layer."""
    return {"offsets": offsets, "lengths": lengths, "mask": mask, "touched": {}}


def inside(offsets, lengths, where):
    """Which tokens are meant, bool, the shape of `offsets`: those with first <= offset < stop (None leaves an end open),
    or those at the positions `at` (0 is the row's first token, -1 the prompt's last; `lengths` [row] are the prompts')."""
    if where["at"] is not None:
        start = lengths.to(offsets.device)[:, None]
        touched = torch.zeros_like(offsets, dtype=torch.bool)
        for position in where["at"]:
            touched = touched | (offsets == (position if position < 0 else position - start))
        return touched
    touched = torch.ones_like(offsets, dtype=torch.bool)
    if where["first"] is not None:
        touched = touched & (offsets >= where["first"])
    if where["stop"] is not None:
        touched = touched & (offsets < where["stop"])
    return touched


def extent(touched):
    """From where to where any row of `touched` [row, token] is true: of a long prompt, often its last token alone."""
    there = touched.any(0).nonzero()[:, 0]
    return int(there[0]), int(there[-1]) + 1


def mean_over(h, touched):
    """Mean of `h` [row, token, hidden] over the touched tokens [row, token], in fp32: [row, hidden]."""
    if touched.all():  # as of a prompt's last token
        return h[:, 0].to(torch.float32, copy=True) if h.shape[1] == 1 else h.float().mean(1)
    weight = touched.to(h.device).float()[..., None]
    total = torch.where(weight > 0, h.float(), torch.zeros((), device=h.device)).sum(1)
    return total / weight.sum(1)


def mean_norm_over(h, touched):
    """Mean norm of the touched tokens' states, in fp32: [row]."""
    return mean_over(h.float().norm(dim=-1, keepdim=True), touched)[:, 0]


def kernel(h, edit):
    """The edit of every token of `h` [row, token, hidden], in fp32 unless it only adds."""
    if edit["kind"] == "custom":
        return edit["function"](h, *(tensor.to(h.device) for tensor in edit["tensors"])).to(h.dtype)
    if edit["kind"] == "rotate":
        return rotate(h.float(), edit["plane"].to(h.device), edit["target"].to(h.device)).to(h.dtype)
    if edit["right"] is None:
        shift = edit["shift"].to(h)
        return h + (shift if edit["shift_of"] is None else shift[edit["shift_of"].to(h.device)][:, None])
    return linear(h.float(), edit).to(h.dtype)


def linear(x, edit):
    """x - ((x - center) @ rightT) @ left + shift."""
    left, right, center, shift = (edit[name].to(x) for name in ("left", "right", "center", "shift"))
    with torch.autocast(x.device.type, enabled=False):
        return x - ((x - center) @ right.mT) @ left + shift


def rotate(x, plane, target):
    """x with its part in the plane [2, hidden] turned towards `target` [hidden], a unit vector of the plane."""
    with torch.autocast(x.device.type, enabled=False):
        part = x @ plane.mT
        return x - part @ plane + part.norm(dim=-1, keepdim=True) * target


def renormed(h, new, touched, prompt, norm):
    """`new` with each touched token scaled to the norm it had in `h`: always ("keep"), or where it grew or is not finite
    ("bound", CAST's out-of-input normalisation); of the `prompt` tokens all when one did, as they come in one pass."""
    before = h.float().norm(dim=-1, keepdim=True)
    after = new.float().norm(dim=-1, keepdim=True)
    scaled = (new.float() * (before / after)).to(h.dtype)
    if norm == "keep":
        return scaled
    grew = ((after > before) | ~after.isfinite()) & touched[..., None]
    prompt = prompt[..., None]
    return torch.where(torch.where(prompt, (grew & prompt).any(1, keepdim=True), grew), scaled, new)


def holds(when, verdicts):
    """The verdict of a combination of conditions in postfix order, bool [row]: (0, 1, "and", 2, "or")."""
    stack = []
    for item in when:
        if isinstance(item, int):
            stack.append(verdicts[item])
        else:
            right, left = stack.pop(), stack.pop()
            stack.append(left & right.to(left.device) if item == "and" else left | right.to(left.device))
    return stack[0]


def apply(h, edits, tokens, verdicts):
    """`h` after every edit of one site. An edit touches a token when its span, the pad mask, its rows, the verdict of its
    condition and its gate all say so; other tokens keep their bits."""
    if any(edit["rows"] is not None for edit in edits):
        h = h.clone()  # to be written row by row; the model's own tensor is not
    before_answer = {"first": None, "stop": 0, "at": None}
    prompt = touched_by(before_answer, None, tokens, {}, h.device)
    for edit in edits:
        touched = touched_by(edit["where"], edit["when"], tokens, verdicts, h.device)
        if edit["rows"] is None:
            h = edited(h, edit, touched, prompt)
        else:
            there = edit["rows"].to(h.device)
            h[there] = edited(h[there], edit, touched[there], prompt[there])
    return h


def touched_by(where, when, tokens, verdicts, device):
    """Which tokens of every row a span, the pad mask and a condition (or None) name, bool [row, token]."""
    key = (where["first"], where["stop"], where["at"], when, str(device))
    if key not in tokens["touched"]:
        touched = inside(tokens["offsets"], tokens["lengths"], where) & tokens["mask"].bool()
        if when is not None:
            touched = touched & holds(when, verdicts).to(touched.device)[:, None]
        tokens["touched"][key] = touched.to(device)
    return tokens["touched"][key]


def edited(h, edit, touched, prompt):
    """`h` after one edit of the touched tokens; `prompt` says which belong to the prompt. Both bool [row, token]."""
    part = columns(h, edit["columns"])
    if edit["gate"] is not None:
        touched = touched & gate(part, edit["gate"])
    new = kernel(part, edit)
    if edit["norm"] is not None:
        new = renormed(part, new, touched, prompt, edit["norm"])
    new = torch.where(touched[..., None], new, part)
    return new if edit["columns"] is None else with_columns(h, edit["columns"], new)


def gate(h, gate):
    """Which tokens' states lie on the gate's side, bool [row, token]."""
    along = h.float() @ gate["vector"].to(h.device)
    return along > gate["threshold"] if gate["above"] else along <= gate["threshold"]


def columns(h, bounds):
    """The slice of the hidden dimension that belongs to one attention head; everything when there are no bounds."""
    return h if bounds is None else h[..., bounds[0] : bounds[1]]


def with_columns(h, bounds, new):
    """`h` with that slice replaced."""
    return torch.cat([h[..., : bounds[0]], new, h[..., bounds[1] :]], dim=-1)


def score(h, condition, tokens):
    """How strongly each row shows the condition's direction, fp32 [row]: the cosine of the pooled state with it; CAST's
    sim(h, tanh(proj_c h)) (section 3.1), which does not depend on its sign; the signed projection; or the coordinate along it."""
    touched = touched_by(condition["where"], None, tokens, {}, tokens["mask"].device)
    first, stop = extent(touched)
    pooled = mean_over(columns(h, condition["columns"])[:, first:stop], touched[:, first:stop])
    c = condition["vector"].to(pooled)
    if condition["score"] == "projection":
        return (pooled * c).sum(-1) / c.norm()
    if condition["score"] == "coordinate":
        return ((pooled - condition["origin"].to(pooled)) * c).sum(-1) / (c * c).sum()
    other = c.expand_as(pooled)
    if condition["score"] == "cast":
        other = torch.tanh((pooled * c).sum(-1, keepdim=True) / (c * c).sum() * c)
    return torch.nn.functional.cosine_similarity(pooled, other, dim=-1)


def verdict(scores, condition):
    """Whether the condition holds, bool [row]. `below` is the exact complement of `above`."""
    return scores > condition["threshold"] if condition["above"] else scores <= condition["threshold"]
