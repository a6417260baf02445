"""The nnsight traces. Each function owns one `with` block: it reads, computes through
`nnsteer.kernels.edits`, assigns, and brings plain tensors home. Functions are imported by name: a
module's name in a block would send the whole module. Modules are visited in the order of the
forward pass."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import anyio  # noqa: F401  before nnsight, whose `save` on object keeps it from being imported
import nnsight
import torch
from nnsight import TransformersModel, save
from nnsight.intervention.backends import local as simulation
from torch import Tensor
from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

from nnsteer.errors import UserError
from nnsteer.kernels import edits, fits, logits
from nnsteer.kernels.edits import (
    columns,
    decode_offsets,
    edit,
    extent,
    mean_norm_over,
    mean_over,
    prefill_offsets,
    run_on_tokens,
    run_once,
    score,
    states,
    tokens_of,
    verdict,
)
from nnsteer.kernels.logits import gumbel, logits_of, with_logits
from nnsteer.model.chat import Batch
from nnsteer.ndif.client import Client, Link
from nnsteer.ndif.journal import digest

Envoy: TypeAlias = TransformersModel
"""nnsight's view of a model; its `LanguageModel` is one."""
Remote: TypeAlias = Link | Literal["local"] | None
"""Where a trace runs: None here, "local" here through nnsight's simulation of a server, a Link on a
server."""
Take: TypeAlias = Callable[[Tensor, Tensor], Any]
"""A function of `nnsteer.kernels.logits`, of logits [row, token, vocab] and of what is wanted of
them."""

READING = {"use_cache": False, "logits_to_keep": 1}
UNSET = dict.fromkeys(("temperature", "top_p", "top_k"))
GREEDY = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "use_cache": True, **UNSET}
"""The checkpoint's own generation settings are not used; samples come from noise on the logits
(`logits.gumbel`)."""


def open_envoy(
    model: PreTrainedModel | str, tokenizer: PreTrainedTokenizerBase, revision: str | None = None
) -> Envoy:
    """Wraps a loaded model, or builds the modules of a folder or hub id without their weights, and
    has nnsight ship three modules by source wherever a trace runs."""
    for travelling in (edits, logits, fits):
        nnsight.register(travelling)
    if isinstance(model, str):
        return TransformersModel(
            model, task="text-generation", tokenizer=tokenizer, revision=revision
        )
    return TransformersModel(model, tokenizer=tokenizer)


def unwrapped(model: PreTrainedModel | Envoy) -> tuple[PreTrainedModel, Any]:
    """The transformers model in one of nnsight's, with its weights, and the tokenizer that nnsight
    opened it with; one of transformers as it is, without one. Raises UserError for others."""
    if isinstance(model, TransformersModel):
        model.dispatch()
        return model._module, model.tokenizer
    if not isinstance(model, PreTrainedModel):
        expected = "a transformers model or an nnsight.LanguageModel; load one with Runner.open"
        raise UserError(f"model: got a {type(model).__name__}; expected {expected}")
    return model, None


def server(envoy: Envoy, remote: Remote, step: str, *inputs: Any) -> Any:
    """nnsight's backend for a block; `inputs` are all that its result depends on besides the
    model."""
    if remote is None:
        return None
    if isinstance(remote, str):
        # nnsight hides installed modules while it unpacks a block; the thread that draws a progress
        # bar imports rich's then
        simulation._SERVER_MODULES.add("rich")
        return envoy._remote_backend("local", True, None, False)
    return Client(
        remote, step, digest(step, remote.model_key, *inputs), envoy._remoteable_get_env()
    )


def read_means(
    envoy: Envoy, remote: Remote, places: list[dict], batch: Batch, touched: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """The mean state over the touched tokens [row, token] at each of `Layout.places`, fp32 [row,
    hidden] each, and the mean norm of those states, fp32 [row] each. A place's `mlp`, after which
    nothing but that place comes, is run on the touched tokens alone."""
    inputs = batch.inputs
    modules = [(envoy.get(place["path"]), place) for place in places]
    first, stop = extent(touched)
    inner = touched[:, first:stop]
    backend = server(envoy, remote, "reading states", places, inputs, touched)
    with torch.no_grad(), envoy.trace(inputs, backend=backend, **READING) as reading:
        means, norms = [], []
        for module, place in modules:
            if place["mlp"] is not None:
                run_on_tokens(envoy.get(place["mlp"]), first, stop)
            h = columns(states(module, place["input"]), place["columns"])[:, first:stop]
            means.append(mean_over(h, inner).cpu())
            norms.append(mean_norm_over(h, inner).cpu())
        out = save({"means": means, "norms": norms})
        reading.stop()
    forget_stopped_pass()
    return out["means"], out["norms"]


def fit_there(
    envoy: Envoy,
    remote: Remote,
    places: list[dict],
    batches: Sequence[tuple[Batch, Tensor]],
    reduce: Callable,
    order: Tensor,
    arguments: tuple,
) -> Any:
    """`reduce(states, norms, order, *arguments)` of what `read_means` reads of every batch, in one
    request: what comes home is what it returns."""
    modules = [(envoy.get(place["path"]), place) for place in places]
    passes = []
    for batch, touched in batches:
        first, stop = extent(touched)
        passes.append((batch.inputs, first, stop, touched[:, first:stop]))
    backend = server(envoy, remote, "fitting", places, passes, reduce, order, arguments)
    with torch.no_grad(), envoy.session(backend=backend):
        rows, lengths = [], []
        for inputs, first, stop, touched in passes:
            with envoy.trace(inputs, **READING):
                means, norms = [], []
                for module, place in modules:
                    h = columns(states(module, place["input"]), place["columns"])[:, first:stop]
                    means.append(mean_over(h, touched))
                    norms.append(mean_norm_over(h, touched))
            rows.append(means)
            lengths.append(norms)
        out = save({"reduced": reduce(rows, lengths, order, *arguments)})
    return out["reduced"]


def read_scores(envoy: Envoy, remote: Remote, plan: dict, batches: Sequence[Batch]) -> Tensor:
    """Every condition's score on the unsteered prompts of all batches in turn, fp32 [condition,
    row], in one request; where it is safe, in passes that stop at the last condition."""
    conditions, numbers = plan["conditions"], list(range(len(plan["conditions"])))
    passes = []
    for i, batch in enumerate(batches, start=1):
        stops = remote is None or i == len(batches)  # NDIF loses the traces that follow a stop
        passes.append((batch.inputs, prefill_tokens(batch), stops))
    wanted = [(v["path"], v["input"], v["conditions"]) for v in plan["visits"] if v["conditions"]]
    visits = [(envoy.get(path), is_input, here) for path, is_input, here in wanted]
    backend = server(envoy, remote, "scoring", conditions, wanted, passes)
    with torch.no_grad(), envoy.session(backend=backend):
        found = []
        for inputs, tokens, stops in passes:
            with envoy.trace(inputs, **READING) as scoring:
                scores = {}
                for module, is_input, here in visits:
                    h = states(module, is_input)
                    for c in here:
                        scores[c] = score(h, conditions[c], tokens).cpu()
                if stops:
                    scoring.stop()
            found.append(torch.stack([scores[c] for c in numbers]))
        out = save({"scores": torch.cat(found, dim=1)})
    forget_stopped_pass()
    return out["scores"]


def steered_pass(
    envoy: Envoy, remote: Remote, plan: dict, batch: Batch, last: int, take: Take, wanted: Tensor
) -> Any:
    """One steered pass over prompts and responses, without a cache: what `take` makes of the logits
    of the `last` tokens of each row, 0 for all, [row, token, vocab]."""
    inputs, tokens, conditions = batch.inputs, prefill_tokens(batch), plan["conditions"]
    verdicts = verdicts_ahead(plan)
    visits = [(envoy.get(v["path"]), v) for v in plan["visits"]]
    facts = (inputs, batch.response_lengths, last, take.__name__, wanted)
    backend = server(envoy, remote, take.__name__, plan, *facts)
    options = READING | {"logits_to_keep": last}
    with torch.no_grad(), envoy.trace(inputs, backend=backend, **options):
        for module, v in visits:
            if v["shared"]:
                run_once(module, v["shared"]["rows"], v["shared"]["back"])
            for c in v["conditions"]:
                if c not in verdicts:
                    scores = score(states(module, v["input"]), conditions[c], tokens)
                    verdicts[c] = verdict(scores, conditions[c])
            if v["edits"]:
                edit(module, v, tokens, verdicts)
        out = save({"taken": take(logits_of(envoy.output), wanted)})
    return out["taken"]


def generate(
    envoy: Envoy,
    remote: Remote,
    plan: dict,
    batch: Batch,
    max_new_tokens: int,
    sampling: dict | None,
    head: str,
    cache: Cache | None,
) -> tuple[Tensor, list[Tensor]]:
    """Steered generation with a cache: token ids [row, prompt + new], padded after each row's end,
    and the conditions' scores, fp32 [row] each. Verdicts are taken once, in the prefill or from
    the plan's scores, and live only in this call."""
    inputs, mask = batch.inputs, batch.mask
    lengths, responses = batch.prompt_lengths, batch.response_lengths
    conditions, verdicts = plan["conditions"], verdicts_ahead(plan)
    visits = [(envoy.get(v["path"]), v) for v in plan["visits"]]
    last = torch.ones(mask.shape[0], 1, dtype=mask.dtype)
    lm_head = envoy.get(head) if head else envoy
    options = GREEDY | {"max_new_tokens": max_new_tokens, "past_key_values": cache}
    backend = server(envoy, remote, "generating", plan, inputs, responses, max_new_tokens, sampling)
    with warnings.catch_warnings():
        # all rows may end before max_new_tokens; the second invoke brings the results home anyway
        warnings.filterwarnings("ignore", message=".*was never reached.*")
        with envoy.generate(backend=backend, **options) as generating:
            with generating.invoke(inputs):
                scores = {}
                for step in generating.iter[:max_new_tokens]:
                    prefill = step == 0
                    if prefill:
                        tokens = tokens_of(prefill_offsets(mask, responses), lengths, mask)
                    else:
                        tokens = tokens_of(decode_offsets(mask, step), lengths, last)
                    for module, v in visits:
                        if not prefill and not v["decodes"]:
                            continue
                        if prefill and v["shared"]:
                            run_once(module, v["shared"]["rows"], v["shared"]["back"])
                        for c in v["conditions"]:
                            if c not in verdicts:
                                h = states(module, v["input"])
                                scores[c] = score(h, conditions[c], tokens).cpu()
                                verdicts[c] = verdict(scores[c], conditions[c])
                        if v["edits"]:
                            edit(module, v, tokens, verdicts)
                    if sampling is not None:
                        noisy = gumbel(logits_of(lm_head.output), step, **sampling)
                        lm_head.output = with_logits(lm_head.output, noisy)
            with generating.invoke():
                out = save({"ids": generating.result.cpu(), "scores": scores})
    return out["ids"], plan["scores"] or [out["scores"][c] for c in range(len(conditions))]


def prefill_tokens(batch: Batch) -> dict:
    """The tokens of a pass over whole prompts and responses."""
    offsets = prefill_offsets(batch.mask, batch.response_lengths)
    return tokens_of(offsets, batch.prompt_lengths, batch.mask)


def verdicts_ahead(plan: dict) -> dict[int, Tensor]:
    """Verdicts by condition number, from the scores that a pass of their own found, if any."""
    conditions = plan["conditions"]
    return {c: verdict(scores, conditions[c]) for c, scores in enumerate(plan["scores"])}


def forget_stopped_pass() -> None:
    """Frees every block's states: nnsight stops a pass by an exception, and its traceback holds
    them in a cycle."""
    gc.collect(1)
