"""What runs inside a trace: masks, the edits and the scores of conditions. Rows are prompts, tokens
the columns of the padded batch.

This file travels to a server, by source: torch alone, no decorators, no defaults.
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
    """What enters (`is_input`) or leaves a traced module, [row, token, hidden]."""
    return hidden(module.input if is_input else module.output)


def edit(module, visit, tokens, verdicts):
    """Makes a visit's edits on a traced module: read, compute, assign."""
    output = module.input if visit["input"] else module.output
    new = put(output, apply(hidden(output), visit["edits"], tokens, verdicts))
    if visit["input"]:
        module.input = new
    else:
        module.output = new


def run_once(module, rows, back):
    """Has a traced block run on the `rows` [kind] of its batch alone, and gives each row its kind's
    output, `back` [row]; on every row where its inputs are not known to be cut safely."""
    args, kwargs = module.inputs
    count = len(back)
    if has_rows((*args, *kwargs.values()), count):
        named = {name: with_rows(value, rows, count) for name, value in kwargs.items()}
        module.inputs = with_rows(args, rows, count), named
        module.output = with_rows(module.output, back, len(rows))


def has_rows(value, count):
    """Whether a block's inputs can be cut: tensors with `count` rows, or one for all, and what
    holds no states of rows. A table that the block writes for a later one can't."""
    if isinstance(value, torch.Tensor):
        return value.dim() < 2 or value.shape[0] in (1, count)
    if isinstance(value, (tuple, list)):
        return all(has_rows(item, count) for item in value)
    is_cache = hasattr(value, "get_seq_length")
    return value is None or isinstance(value, (bool, int, float, str)) or is_cache


def with_rows(value, rows, count):
    """What enters or leaves a block with some of its `count` rows, or some of them again."""
    if type(value) in (tuple, list):
        return type(value)([with_rows(item, rows, count) for item in value])
    if isinstance(value, torch.Tensor) and value.dim() > 1 and value.shape[0] == count:
        return value[rows.to(value.device)]
    return value


def run_on_tokens(module, first, stop):
    """Has a module that takes each token by itself, as an MLP, run on some of a batch's tokens; the
    others get zeros. One that takes more than the states runs on all."""
    args, kwargs = module.inputs
    if len(args) == 1 and not kwargs:
        h = module.input
        module.input = h[:, first:stop].contiguous()
        output, every = module.output, torch.zeros_like(h)
        every[:, first:stop] = hidden(output)
        module.output = put(output, every)


def prefill_offsets(mask, response_lengths):
    """Where each token of a padded batch lies from the end of its row's prompt, [row, token]: the
    prompt's last token is -1, the first token after the prompt 0. Pads may be on either side."""
    lengths = mask.sum(1, keepdim=True) - response_lengths.to(mask.device)[:, None]
    return mask.cumsum(1) - 1 - lengths


def decode_offsets(mask, step):
    """The same for the one token that decode step `step` (1, 2, ...) feeds in, [row, 1]."""
    return torch.full((mask.shape[0], 1), step - 1, device=mask.device)


def tokens_of(offsets, lengths, mask):
    """The tokens of one forward pass: where they lie, the rows' prompt lengths, the pads, and what
    was found to touch which of them, so that this is worked out once a pass, not once a layer."""
    return {"offsets": offsets, "lengths": lengths, "mask": mask, "touched": {}}


def inside(offsets, lengths, where):
    """Which tokens are meant, bool, the shape of `offsets`: those with first <= offset < stop (None
    leaves an end open), or those at the positions `at` (0 is the row's first token, -1 the prompt's
    last; `lengths` [row] are the prompts')."""
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
    """From where to where any row of `touched` [row, token] is true: often one token alone."""
    tokens = touched.any(0).nonzero()[:, 0]
    return int(tokens[0]), int(tokens[-1]) + 1


def mean_over(h, touched):
    """Mean over the touched tokens [row, token] of `h` [row, token, hidden], fp32 [row, hidden]."""
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
        plane, target = edit["plane"].to(h.device), edit["target"].to(h.device)
        return rotate(h.float(), plane, target).to(h.dtype)
    if edit["right"] is not None:
        return linear(h.float(), edit).to(h.dtype)
    shift = edit["shift"].to(h)
    if edit["shift_of"] is not None:
        shift = shift[edit["shift_of"].to(h.device)][:, None]
    return h + shift


def linear(x, edit):
    """x - ((x - center) @ rightT) @ left + shift."""
    left, right, center, shift = (edit[name].to(x) for name in ("left", "right", "center", "shift"))
    with torch.autocast(x.device.type, enabled=False):
        return x - ((x - center) @ right.mT) @ left + shift


def rotate(x, plane, target):
    """x with its part in the plane [2, hidden] turned to `target` [hidden], a unit vector in it."""
    with torch.autocast(x.device.type, enabled=False):
        part = x @ plane.mT
        return x - part @ plane + part.norm(dim=-1, keepdim=True) * target


def renormed(h, new, touched, prompt, norm):
    """`new` with each touched token at the norm it had in `h`: always ("keep"), or where it grew or
    is not finite ("bound", CAST's out-of-input normalisation), for the `prompt` where any did."""
    before = h.float().norm(dim=-1, keepdim=True)
    after = new.float().norm(dim=-1, keepdim=True)
    scaled = (new.float() * (before / after)).to(h.dtype)
    if norm == "keep":
        return scaled
    grew = ((after > before) | ~after.isfinite()) & touched[..., None]
    prompt = prompt[..., None]
    return torch.where(torch.where(prompt, (grew & prompt).any(1, keepdim=True), grew), scaled, new)


def holds(when, verdicts):
    """The verdict of conditions in postfix order, such as (0, 1, "and", 2, "or"), bool [row]."""
    stack = []
    for item in when:
        if isinstance(item, int):
            stack.append(verdicts[item])
        else:
            right, left = stack.pop(), stack.pop()
            right = right.to(left.device)
            stack.append(left & right if item == "and" else left | right)
    return stack[0]


def apply(h, edits, tokens, verdicts):
    """`h` after every edit of one site. An edit touches a token when its span, the pad mask, its
    rows, the verdict of its condition and its gate all say so; other tokens keep their bits."""
    if any(edit["rows"] is not None for edit in edits):
        h = h.clone()  # to be written row by row; the model's own tensor is not
    prompt = touched_by({"first": None, "stop": 0, "at": None}, None, tokens, {}, h.device)
    for edit in edits:
        touched = touched_by(edit["where"], edit["when"], tokens, verdicts, h.device)
        if edit["rows"] is None:
            h = edited(h, edit, touched, prompt)
        else:
            rows = edit["rows"].to(h.device)
            h[rows] = edited(h[rows], edit, touched[rows], prompt[rows])
    return h


def touched_by(where, when, tokens, verdicts, device):
    """Which tokens a span, the pad mask and a condition (or None) name, bool [row, token]."""
    key = (where["first"], where["stop"], where["at"], when, str(device))
    if key not in tokens["touched"]:
        touched = inside(tokens["offsets"], tokens["lengths"], where) & tokens["mask"].bool()
        if when is not None:
            touched = touched & holds(when, verdicts).to(touched.device)[:, None]
        tokens["touched"][key] = touched.to(device)
    return tokens["touched"][key]


def edited(h, edit, touched, prompt):
    """`h` after one edit of the `touched` tokens, bool [row, token] as the `prompt`'s are."""
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
    return verdict(h.float() @ gate["vector"].to(h.device), gate)


def columns(h, bounds):
    """The slice of the hidden dimension that is one attention head's; without bounds, all of it."""
    return h if bounds is None else h[..., bounds[0] : bounds[1]]


def with_columns(h, bounds, new):
    """`h` with that slice replaced."""
    return torch.cat([h[..., : bounds[0]], new, h[..., bounds[1] :]], dim=-1)


def score(h, condition, tokens):
    """How strongly each row shows the condition's direction, fp32 [row]: the cosine of the pooled
    state with it; CAST's sim(h, tanh(proj_c h)) (section 3.1), which does not depend on its sign;
    the signed projection; or the coordinate along it."""
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
    """Which scores a condition, or a gate, accepts; `below` is the exact complement of `above`."""
    threshold = condition["threshold"]
    return scores > threshold if condition["above"] else scores <= threshold
