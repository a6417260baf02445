"""The nnsight traces. Each function owns one `with` block: it reads, computes through `nnsteer.kernels.edits`, assigns, and
brings plain tensors home. Functions are imported by name: a module's name in a block would send the whole module. Modules are
visited in the order of the forward pass."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import anyio  # noqa: F401  before nnsight, which puts `save` on object: anyio could not be imported later
import nnsight
import torch
from nnsight import TransformersModel, save
from nnsight.intervention.backends import local as simulation
from torch import Tensor
from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

from nnsteer.kernels import edits, fits, logits
from nnsteer.kernels.edits import columns as columns_of
from nnsteer.kernels.edits import (
    decode_offsets,
    edit,
    extent,
    mean_norm_over,
    mean_over,
    prefill_offsets,
    run_on_tokens,
    run_once,
    tokens_of,
)
from nnsteer.kernels.edits import score as score_of
from nnsteer.kernels.edits import states as states_of
from nnsteer.kernels.edits import verdict as verdict_of
from nnsteer.kernels.logits import gumbel, logits_of, with_logits
from nnsteer.model.chat import Batch
from nnsteer.ndif.client import Client, Link
from nnsteer.ndif.journal import digest

Envoy: TypeAlias = TransformersModel
"""nnsight's view of a model."""
Remote: TypeAlias = Link | Literal["local"] | None
"""Where a trace runs: None here, "local" here through nnsight's simulation of a server, a Link on a server."""
Take: TypeAlias = Callable[[Tensor, Tensor], Any]
"""A function of `nnsteer.kernels.logits`, of logits [row, token, vocab] and of what is wanted of them."""


GREEDY = {
    "do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "temperature": None, "top_p": None, "top_k": None,
    "use_cache": True,
}  # fmt: skip
"""The checkpoint's own generation settings are not used; samples come from noise on the logits (`logits.gumbel`)."""


def open_envoy(model: PreTrainedModel | str, tokenizer: PreTrainedTokenizerBase, revision: str | None = None) -> Envoy:
    """Wraps a loaded model, or builds the modules of a folder or hub id without their weights, and has nnsight ship three modules
    by source wherever a trace runs."""
    for travelling in (edits, logits, fits):
        nnsight.register(travelling)
    if isinstance(model, str):
        return TransformersModel(model, task="text-generation", tokenizer=tokenizer, revision=revision)
    return TransformersModel(model, tokenizer=tokenizer)


def server(envoy: Envoy, remote: Remote, step: str, *inputs: Any) -> Any:
    """nnsight's backend for a block; `inputs` are all that its result depends on besides the model."""
    if remote is None:
        return None
    if isinstance(remote, str):
        # nnsight hides installed modules while it unpacks a block; the thread that draws a progress bar imports rich's then
        simulation._SERVER_MODULES.add("rich")
        return envoy._remote_backend("local", True, None, False)
    return Client(remote, step, digest(step, remote.model_key, *inputs), envoy._remoteable_get_env())


def read_means(
    envoy: Envoy, remote: Remote, places: list[dict], last_mlp: str | None, batch: Batch, touched: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """The mean state over the touched tokens [row, token] at each place, in forward order, fp32 [row, hidden] each, and the
    mean norm of those states, fp32 [row] each. A place has a module's `path`, `input` (whether it is meant) and `columns`.
    `last_mlp` is the path of an MLP after which nothing but the last place comes: it is run on the touched tokens alone."""
    inputs = {"input_ids": batch.ids, "attention_mask": batch.mask}
    modules = [(envoy.get(place["path"]), place) for place in places]
    first, stop = extent(touched)
    inner = touched[:, first:stop]
    backend = server(envoy, remote, "reading states", places, batch.ids, batch.mask, touched)
    with torch.no_grad(), envoy.trace(inputs, backend=backend, use_cache=False, logits_to_keep=1) as reading:
        states, norms = [], []
        for module, place in modules:
            if last_mlp is not None and place is places[-1]:
                run_on_tokens(envoy.get(last_mlp), first, stop)
            h = columns_of(states_of(module, place["input"]), place["columns"])[:, first:stop]
            states.append(mean_over(h, inner).cpu())
            norms.append(mean_norm_over(h, inner).cpu())
        out = save({"states": states, "norms": norms})
        reading.stop()
    forget_stopped_pass()
    return out["states"], out["norms"]


def fit_there(
    envoy: Envoy,
    remote: Remote,
    places: list[dict],
    batches: Sequence[tuple[Batch, Tensor]],
    reduce: Callable,
    order: Tensor,
    arguments: tuple,
) -> Any:
    """`reduce(states, norms, order, *arguments)` of what `read_means` reads of every batch, in one request: what comes home is
    what it returns."""
    modules = [(envoy.get(place["path"]), place) for place in places]
    inputs = []
    for batch, touched in batches:
        first, stop = extent(touched)
        inputs.append(({"input_ids": batch.ids, "attention_mask": batch.mask}, first, stop, touched[:, first:stop]))
    backend = server(envoy, remote, "fitting", places, inputs, reduce, order, arguments)
    with torch.no_grad(), envoy.session(backend=backend):
        rows, lengths = [], []
        for tokens, first, stop, touched in inputs:
            with envoy.trace(tokens, use_cache=False, logits_to_keep=1):
                states, norms = [], []
                for module, place in modules:
                    h = columns_of(states_of(module, place["input"]), place["columns"])[:, first:stop]
                    states.append(mean_over(h, touched))
                    norms.append(mean_norm_over(h, touched))
            rows.append(states)
            lengths.append(norms)
        out = save({"reduced": reduce(rows, lengths, order, *arguments)})
    return out["reduced"]


def read_scores(envoy: Envoy, remote: Remote, plan: dict, batches: Sequence[Batch]) -> Tensor:
    """Every condition's score on the unsteered prompts of all batches in turn, fp32 [condition, row], in one request; where it is
    safe, in passes that stop at the last condition."""
    conditions, numbers = plan["conditions"], list(range(len(plan["conditions"])))
    rows = []
    for batch in batches:
        tokens = tokens_of(prefill_offsets(batch.mask, batch.response_lengths), batch.prompt_lengths, batch.mask)
        rows.append(({"input_ids": batch.ids, "attention_mask": batch.mask}, tokens))
    stops = [remote is None or i + 1 == len(rows) for i in range(len(rows))]  # NDIF loses the traces that follow a stop
    visits = [(envoy.get(v["path"]), v["input"], v["conditions"]) for v in plan["visits"] if v["conditions"]]
    backend = server(
        envoy, remote, "scoring", conditions, [(v["path"], v["input"], v["conditions"]) for v in plan["visits"]], rows
    )
    with torch.no_grad(), envoy.session(backend=backend):
        found = []
        for (inputs, tokens), stop in zip(rows, stops, strict=True):
            with envoy.trace(inputs, use_cache=False, logits_to_keep=1) as scoring:
                scores = {}
                for module, is_input, wanted in visits:
                    h = states_of(module, is_input)
                    for c in wanted:
                        scores[c] = score_of(h, conditions[c], tokens).cpu()
                if stop:
                    scoring.stop()
            found.append(torch.stack([scores[c] for c in numbers]))
        out = save({"found": torch.cat(found, dim=1)})
    forget_stopped_pass()
    return out["found"]


def steered_pass(
    envoy: Envoy, remote: Remote, plan: dict, batch: Batch, ahead: list[Tensor] | None, last: int, take: Take, wanted: Tensor
) -> Any:
    """One steered pass over prompts and responses, without a cache: what `take` makes of the logits of the `last` tokens of each
    row, 0 for all, [row, token, vocab]."""
    inputs = {"input_ids": batch.ids, "attention_mask": batch.mask}
    mask, conditions = batch.mask, plan["conditions"]
    tokens = tokens_of(prefill_offsets(mask, batch.response_lengths), batch.prompt_lengths, mask)
    verdicts = {} if ahead is None else decide(ahead, conditions)
    visits = [(envoy.get(v["path"]), v) for v in plan["visits"]]
    asked = (batch.ids, mask, batch.response_lengths, ahead, last, take.__name__, wanted)
    backend = server(envoy, remote, take.__name__, plan, *asked)
    with torch.no_grad(), envoy.trace(inputs, backend=backend, use_cache=False, logits_to_keep=last):
        for module, v in visits:
            if v["shared"]:
                run_once(module, v["shared"]["rows"], v["shared"]["back"])
            if ahead is None:
                for c in v["conditions"]:
                    scores = score_of(states_of(module, v["input"]), conditions[c], tokens)
                    verdicts[c] = verdict_of(scores, conditions[c])
            if v["edits"]:
                edit(module, v, tokens, verdicts)
        out = save({"taken": take(logits_of(envoy.output), wanted)})
    return out["taken"]


def generate(
    envoy: Envoy,
    remote: Remote,
    plan: dict,
    batch: Batch,
    ahead: list[Tensor] | None,
    max_new_tokens: int,
    sampling: dict | None,
    head: str,
    cache: Cache | None,
) -> tuple[Tensor, list[Tensor]]:
    """Steered generation with a cache: token ids [row, prompt + new], padded after each row's end, and the conditions'
    scores, fp32 [row] each. Verdicts are taken once, in the prefill or from `ahead`, and live only in this call."""
    inputs = {"input_ids": batch.ids, "attention_mask": batch.mask}
    mask, lengths, responses, conditions = batch.mask, batch.prompt_lengths, batch.response_lengths, plan["conditions"]
    verdicts = {} if ahead is None else decide(ahead, conditions)
    visits = [(envoy.get(v["path"]), v) for v in plan["visits"]]
    last = torch.ones(mask.shape[0], 1, dtype=mask.dtype)
    lm_head = envoy.get(head) if head else envoy
    backend = server(envoy, remote, "generating", plan, batch.ids, mask, responses, ahead, max_new_tokens, sampling)
    with warnings.catch_warnings():
        # all rows may end before max_new_tokens; the second invoke brings the results home all the same
        warnings.filterwarnings("ignore", message=".*was never reached.*")
        with envoy.generate(backend=backend, max_new_tokens=max_new_tokens, past_key_values=cache, **GREEDY) as generating:
            with generating.invoke(inputs):
                scores = {}
                for step in generating.iter[:max_new_tokens]:
                    prefill = step == 0
                    offsets = prefill_offsets(mask, responses) if prefill else decode_offsets(mask, step)
                    tokens = tokens_of(offsets, lengths, mask if prefill else last)
                    for module, v in visits:
                        if not prefill and not v["decodes"]:
                            continue
                        if prefill and v["shared"]:
                            run_once(module, v["shared"]["rows"], v["shared"]["back"])
                        if prefill and ahead is None:
                            for c in v["conditions"]:
                                h = states_of(module, v["input"])
                                scores[c] = score_of(h, conditions[c], tokens).cpu()
                                verdicts[c] = verdict_of(scores[c], conditions[c])
                        if v["edits"]:
                            edit(module, v, tokens, verdicts)
                    if sampling is not None:
                        noisy = gumbel(logits_of(lm_head.output), step, **sampling)
                        lm_head.output = with_logits(lm_head.output, noisy)
            with generating.invoke():
                out = save({"ids": generating.result.cpu(), "scores": scores})
    found = ahead if ahead is not None else [out["scores"][c] for c in range(len(conditions))]
    return out["ids"], found


def forget_stopped_pass() -> None:
    """Frees every block's states: nnsight stops a pass by an exception, and its traceback holds them in a cycle."""
    gc.collect(1)


def decide(scores: list[Tensor], conditions: list[dict]) -> dict:
    """Verdicts by condition number."""
    return {c: verdict_of(score, conditions[c]) for c, score in enumerate(scores)}
