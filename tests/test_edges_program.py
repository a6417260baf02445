"""What the public interface of programs forgives, what it refuses, and how it shows itself."""

from __future__ import annotations

import json
import os
import pickle
import stat
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open

from nnsteer import fit
from nnsteer.errors import UserError
from nnsteer.program import exchange, files
from nnsteer.program.condition import Condition, holds, probe
from nnsteer.program.direction import Direction, Directions, as_directions
from nnsteer.program.identity import ModelId, Vouch, require_same
from nnsteer.program.op import Add, Custom, KeepNorm
from nnsteer.program.program import Program, Step, ablate, add, affine, clamp, edit
from nnsteer.program.quirks import cast_skew
from nnsteer.program.site import Head, Site, named
from nnsteer.program.span import ALL, GENERATED, LAST_PROMPT, PROMPT, Positions

from catalogue import read_of

BASE = ModelId("base", None, "w")
TUNED = ModelId("tuned", None, "x")


def made(layer=1, vector=(3.0, 4.0), boundary=0.5, site=None):
    where = Site(layer) if site is None else site
    origin = torch.tensor([1.0, 0.0])
    return Direction(
        torch.tensor(vector), where, PROMPT, "lda", origin, BASE, "data", 2.0, boundary
    )


def several(*layers):
    return Directions({Site(layer): made(layer, (1.0 + layer, 0.0)) for layer in layers})


def refused(call, *words):
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


@pytest.fixture
def eraser():
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn(20, 4, generator=generator) + shift for shift in (1.0, 0.0)]
    return fit.orth(read_of(*rows))[Site(0)]


# Directions


def test_directions_are_asked_for_by_site_or_by_layer():
    found = several(0, 1, 2)
    assert found[1] is found[Site(1)] is found[np.int64(1)] is found.get(1)
    assert (
        1 in found and Site(1) in found and 7 not in found and -1 not in found and [1] not in found
    )
    assert found.get(7) is None and list(found) == [Site(0), Site(1), Site(2)] and len(found) == 3


@pytest.mark.parametrize("missing", [7, -1, Site(1, "block_in"), "1", slice(0, 2), [0, 1]])
def test_a_direction_that_is_not_there_is_refused_with_what_is(missing):
    refused(lambda: several(0, 1, 2)[missing], "block_out[0, 1, 2]")


def test_directions_at_some_layers_are_all_that_are_there_and_a_layer_without_any_is_refused():
    entering = made(site=Site(2, "block_in"))
    found = several(0, 1, 2) | {entering.site: entering}
    assert list(found.at(2, 1)) == [Site(1), Site(2), entering.site]
    refused(lambda: found.at(1, 5), "layer 5", "block_out[0, 1, 2], block_in[2]")


def test_directions_equal_a_dict_of_the_same_items_and_do_not_change_with_it():
    items = dict(several(0, 1))
    found = Directions(items)
    assert found == items and items == found and found == several(0, 1) and found != several(0)
    assert {**found} == items and (found | several(2)) == several(0, 1, 2) == (
        {**found} | several(2)
    )
    items.clear()
    assert len(found) == 2 and pickle.loads(pickle.dumps(found)) == found
    with pytest.raises(AttributeError):
        found.by_site = {}


def test_what_fit_and_files_return_are_directions(activations, directions, tmp_path):
    methods = [method(activations) for method in fit.METHODS.values()]
    controls = [
        fit.random_like(directions, 1),
        fit.permuted(activations, 1),
        fit.norm_matched(directions, directions),
    ]
    combined = [
        fit.mean([directions]),
        fit.orthogonal(directions, [controls[0]]),
        cast_skew(directions),
    ]
    assert all(isinstance(found, Directions) for found in [*methods, *controls, *combined])
    model_id = directions[1].model
    files.save_directions(tmp_path / "d.safetensors", directions)
    exchange.save_svec(tmp_path / "d.svec", directions, "llama")
    assert isinstance(files.load_directions(tmp_path / "d.safetensors"), Directions)
    assert isinstance(exchange.load_svec(tmp_path / "d.svec", model_id), Directions)
    assert directions.random_like(1) == controls[0]


def test_one_direction_a_list_and_any_mapping_are_taken_for_directions(tmp_path):
    one = made()
    forms = [
        one,
        [one],
        (one,),
        {Site(1): one},
        {"mine": one},
        Directions({Site(1): one}),
        iter([one]),
    ]
    assert {add(form, 2.0) for form in forms} == {Program((Step(Add(one, 2.0), Site(1)),))}
    for op in (ablate, affine, clamp):
        assert op(one, 1.0) == op({Site(1): one}, 1.0) == op([one], 1.0)
    assert fit.random_like(one, 3) == fit.random_like([one], 3) == {Site(1): one.random_like(3)}
    for i, form in enumerate([one, [one], {Site(1): one}]):
        files.save_directions(str(tmp_path / f"{i}.safetensors"), form)
        assert files.load_directions(str(tmp_path / f"{i}.safetensors")) == {Site(1): one}
        exchange.save_svec(str(tmp_path / f"{i}.svec"), form, "llama")
        assert exchange.load_svec(str(tmp_path / f"{i}.svec"), BASE)[1].vector.tolist() == [3, 4]


def test_a_control_vector_is_written_from_one_direction_to_a_path_that_is_text(tmp_path):
    pytest.importorskip("gguf")
    exchange.save_gguf(str(tmp_path / "d.gguf"), made(), "llama")
    assert exchange.load_gguf(str(tmp_path / "d.gguf"), BASE)[1].vector.tolist() == [3, 4]
    assert [path.name for path in tmp_path.iterdir()] == ["d.gguf"]


@pytest.mark.parametrize(
    "wrong", ["d.safetensors", 3, None, torch.ones(2), [1.0, 2.0], {Site(1): "x"}, Program()]
)
def test_what_is_no_direction_is_refused_by_its_kind(wrong, tmp_path):
    kind = {"list": "float", "dict": "str"}.get(type(wrong).__name__, type(wrong).__name__)
    for call in (add, as_directions, lambda it: files.save_directions(tmp_path / "d", it)):
        refused(lambda call=call: call(wrong), f"got {kind}", "expected a Direction")


def test_directions_that_would_get_lost_are_refused(tmp_path):
    twice = [made(), made(vector=(1.0, 0.0))]
    refused(lambda: as_directions(twice), "got 2 at block_out[1]", "one for each site")
    assert len(add(twice).steps) == 2
    refused(lambda: files.save_directions(tmp_path / "d", {}), "no directions to write")


def test_one_editor_and_many_are_edited(eraser):
    assert edit(eraser) == edit([eraser]) == edit({Site(0): eraser}) != Program()
    refused(lambda: edit(made()), "got Direction", "expected an Editor")
    refused(lambda: add(eraser), "got Editor", "edit(")


# Spans and numbers


def test_a_span_is_given_by_name_too(eraser):
    one = made()
    spans = {"all": ALL, "prompt": PROMPT, "last_prompt": LAST_PROMPT, "generated": GENERATED}
    for name, span in spans.items():
        assert add(one, span=name) == add(one, span=span) and edit(eraser, name) == edit(
            eraser, span
        )
        assert Condition(one, 0.5, span=name) == Condition(one, 0.5, span=span)
        assert probe(one, name) == probe(one, span)
    assert add(one, span=Positions((1,))).steps[0].span == Positions((1,))
    for wrong in ("promt", None, 3, ["all"]):
        for call in (
            lambda s: add(one, 1.0, s),
            lambda s: edit(eraser, s),
            lambda s: Condition(one, 0.5, span=s),
        ):
            refused(
                lambda call=call, wrong=wrong: call(wrong), "all, prompt, last_prompt, generated"
            )


@pytest.mark.parametrize(
    "wrong", [float("nan"), float("inf"), "1", None, True, [1.0], torch.ones(2), 1j]
)
def test_a_strength_that_is_no_finite_number_is_refused(wrong):
    for op, name in ((add, "strength"), (ablate, "strength"), (affine, "alpha"), (clamp, "value")):
        refused(lambda op=op: op(made(), wrong), name, "expected a", "number")


@pytest.mark.parametrize(
    "number", [2, np.float32(2), np.int64(2), torch.tensor(2.0), np.array(2.0)]
)
def test_every_sort_of_number_is_a_strength(number):
    assert (
        add(made(), number) == add(made(), 2.0)
        and type(add(made(), number).steps[0].op.strength) is float
    )


@pytest.mark.parametrize("vector", [(0.0, 0.0), (float("nan"), 1.0), (float("inf"), 1.0)])
def test_a_vector_that_is_zero_or_not_finite_makes_no_program_and_no_condition(vector):
    bad = made(vector=vector)
    for call in (add, ablate, affine, lambda d: clamp(d, 1.0), lambda d: Condition(d, 0.5)):
        refused(lambda call=call: call(bad), "lda at block_out[1]", "vector")


def test_a_condition_refuses_what_it_can_not_mean():
    one = made()
    refused(lambda: add(one).when(one), "when: got Direction", "expected a Condition")
    refused(lambda: Condition(several(1), 0.5), "got Directions", "expected one Direction")
    refused(lambda: Condition(one, float("nan")), "threshold nan", "expected a number")
    refused(lambda: Condition(one, "0.5"), "threshold '0.5'", "number")
    refused(lambda: Condition(one, 0.5, "over"), "fires_when 'over'", "above, below")
    refused(lambda: Condition(one, 0.5, score="cos"), "score 'cos'", "cosine, cast")
    assert replace(Condition(one, 0.5), threshold=1).threshold == 1.0 and ~~Condition(
        one, 0.5
    ) == Condition(one, 0.5)
    with pytest.raises(AttributeError):
        Condition(one, 0.5).threshold = 1.0


# Directions of one's own


def test_a_direction_times_a_number_has_the_vector_scaled_and_decides_at_the_same_place():
    one = made()
    state = torch.tensor([2.0, 5.0])

    def coordinate(d):
        return (state - d.origin) @ d.vector / d.vector.norm() ** 2

    for twice in (2 * one, one * 2, one * np.float64(2), np.float64(2) * one):
        assert twice.vector.tolist() == [6, 8] and twice.boundary == 0.25 and twice.method == "lda"
        assert probe(twice).holds(coordinate(twice)) == probe(one).holds(coordinate(one))
    assert (one * 0.5).vector.tolist() == [1.5, 2] and torch.equal((one * 0.5).origin, one.origin)
    assert (made(boundary=None) * 2).boundary is None


def test_a_direction_turned_round_says_so_and_its_probe_fires_on_the_other_side():
    one = made()
    assert (
        (-one).vector.tolist() == [-3, -4]
        and (-one).boundary == -0.5
        and str(-one).startswith("-lda at")
    )
    turned = -one
    assert -turned == one and -1 * one == turned
    for coordinate in (0.2, 0.8):
        assert probe(-one).holds(-coordinate) != probe(one).holds(coordinate)
    for factor in (0, float("nan"), "2"):
        refused(lambda factor=factor: one * factor)


@pytest.mark.parametrize(
    "vector",
    [
        [3, 4], np.array([3.0, 4.0]), torch.tensor([3.0, 4.0], dtype=torch.bfloat16),
        torch.tensor([3.0, 4.0], requires_grad=True), torch.tensor([[3.0, 0.0], [4.0, 0.0]])[:, 0],
    ],
)  # fmt: skip
def test_a_vector_from_elsewhere_becomes_a_direction(vector, tmp_path):
    found = Direction.given(vector, 1, BASE, source="SAE row 7")
    assert (
        found.vector.tolist() == [3, 4]
        and found.vector.dtype == torch.float32
        and found.vector.is_contiguous()
    )
    assert (
        not found.vector.requires_grad
        and found.origin.tolist() == [0, 0]
        and found.boundary is None
    )
    assert (found.site, found.span, found.method, found.data, found.model) == (
        Site(1),
        ALL,
        "given",
        "SAE row 7",
        BASE,
    )
    files.save_directions(tmp_path / "d", found)
    assert files.load_directions(tmp_path / "d")[1] == found


def test_a_given_direction_takes_a_runner_a_place_and_an_origin_and_keeps_its_own_memory(runner):
    values = torch.ones(64)
    found = Direction.given(values, Site(2, "attn_out"), runner, "mine", origin=[2.0] * 64)
    values.zero_()
    assert found.model == runner.model and found.site == Site(2, "attn_out")
    assert found.vector.sum() == 64 and found.origin.sum() == 128


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"vector": torch.ones(1, 2)}, ["vector has shape [1, 2]", "[hidden]"]),
        ({"vector": []}, ["shape [0]"]),
        ({"vector": 3.0}, ["shape []"]),
        ({"vector": "abc"}, ["vector is a str"]),
        ({"vector": [1.0, float("nan")]}, ["1 of 2 entries"]),
        ({"vector": [1e300, 1.0]}, ["1 of 2 entries"]),
        ({"vector": [0.0, 0.0]}, ["zero"]),
        ({"origin": [1.0]}, ["origin has 1 entries but the vector 2"]),
        ({"site": -1}, ["site -1"]),
        ({"site": "block_out"}, ["site 'block_out'"]),
        ({"model": "gpt2"}, ["got str", "give runner.model"]),
        ({"source": " "}, ["say where"]),
    ],
)
def test_a_vector_that_is_no_direction_is_refused(arguments, words):
    given = {"vector": [3.0, 4.0], "site": 1, "model": BASE, "source": "s"} | arguments
    refused(lambda: Direction.given(**given), *words)


def test_a_direction_is_vouched_for_and_remembers_where_it_was_fitted(tmp_path):
    one = made()
    there = one.vouched_for(TUNED, because="a fine-tune of it")
    assert there.model == TUNED and there.vouched == Vouch(BASE, "a fine-tune of it")
    assert (
        torch.equal(there.vector, one.vector)
        and there != one
        and there != replace(there, vouched=None)
    )
    assert str(there).endswith("(fitted on base (weights w), vouched for: a fine-tune of it)")
    require_same(str(there), there.model, TUNED)
    files.save_directions(tmp_path / "d", there)
    files.save_programs(tmp_path / "p", {"it": add(there)})
    assert files.load_directions(tmp_path / "d")[1].vouched == there.vouched
    assert files.load_programs(tmp_path / "p") == {"it": add(there)}
    further = there.vouched_for(ModelId("third", None, "z"), because="an adapter")
    assert further.vouched == Vouch(BASE, "a fine-tune of it; an adapter")
    assert one.vouched_for(BASE, because="the same") is one
    refused(lambda: one.vouched_for(TUNED, because=""), "because ''")
    refused(lambda: one.vouched_for("tuned", because="x"), "got str")


def test_a_direction_that_nobody_vouched_for_has_the_fingerprint_and_the_file_it_always_had(
    tmp_path,
):
    assert (
        made().fingerprint == "e40f3311f57780ed"
    )  # of the version before there was a field for it
    files.save_directions(tmp_path / "d", made())
    with safe_open(tmp_path / "d", "pt") as file:
        (saved,) = json.loads(file.metadata()["facts"])["shared"]
    assert set(saved["fields"]) == {
        "vector",
        "site",
        "span",
        "method",
        "origin",
        "model",
        "data",
        "norm",
        "boundary",
    }


def test_a_direction_of_another_model_is_refused_with_the_two_ways_out(runner, directions):
    foreign = replace(directions[1], model=TUNED)
    refused(
        lambda: runner.logits(["a"], add(foreign)),
        "direction.vouched_for(runner.model",
        "fit it again on this model",
    )
    vouched = foreign.vouched_for(runner, because="I made both")
    for a, b in zip(
        runner.logits(["a"], add(vouched)), runner.logits(["a"], add(directions[1])), strict=True
    ):
        assert torch.equal(a, b)


# How they show themselves


def test_everything_shows_itself_on_one_short_line(activations, directions, eraser):
    one, when = made(), Condition(made(), 0.25)
    assert repr(one) == "Direction: lda at block_out[1] over prompt, length 5"
    assert (
        repr(several(0, 1, 2))
        == "Directions: lda over prompt at block_out[0, 1, 2], lengths 1 to 3"
    )
    assert repr(several(4)) == "Directions: lda over prompt at block_out[4], length 5"
    assert repr(Directions({})) == "Directions: none" and repr(Program()) == "Program: nothing"
    assert repr(when) == "Condition: cosine at block_out[1] > 0.25, of lda, read over prompt"
    program = add(several(1, 2), 1.0, "prompt").when(when) + edit(eraser)
    expected = "add lda x 1 at block_out[1, 2] over prompt if cosine at block_out[1] > 0.25"
    assert repr(program) == f"Program: {expected}; edit orth at block_out[0] over all"
    assert repr(program.steps[0]) == f"Step: {program.steps[0]}"
    assert repr(eraser) == "Editor: orth at block_out[0] over prompt, rank 1"
    kept = Program(
        (Step(KeepNorm(Add(one)), Site(1)), Step(Custom(torch.tanh, (torch.ones(9),)), Site(1)))
    )
    assert (
        repr(kept)
        == "Program: keepnorm (add lda x 1) at block_out[1] over all; custom tanh at block_out[1] over all"
    )
    shown = [
        program.steps[0].op,
        edit(eraser),
        kept.steps[1].op,
        when & ~when,
        activations,
        activations.moments(),
        directions,
    ]
    for value in shown:
        assert (
            len(repr(value)) < 300 and "tensor(" not in repr(value) and "\n" not in repr(value)
        ), repr(value)


def test_a_program_of_many_kinds_of_step_shows_the_first_and_counts_the_rest():
    program = sum((add(made(), strength) for strength in range(1, 10)), Program())
    assert repr(program).startswith("Program: add lda x 1 at") and repr(program).endswith(
        "; 5 more"
    )
    assert len(repr(add(several(*range(32))))) < 100


def test_a_notebook_shows_tables_in_which_every_text_is_escaped():
    found = Directions({Site(1): replace(made(), method="<b>mine</b>")})
    for value in (found, add(found).when(Condition(made(), 0.5))):
        html = value._repr_html_()
        assert "<b>" not in html and "&lt;b&gt;mine" in html and html.count("<tr>") == 2
    assert (
        "cosine at block_out[1] &gt; 0.5" in add(made()).when(Condition(made(), 0.5))._repr_html_()
    )


def test_places_are_named_in_few_words():
    assert named([Site(0), Site(1), Head(1, 3), Site(0)]) == "block_out[0, 1], head[1.3]"
    assert named(map(Site, range(3, 9))) == "block_out[3 to 8]" and named([]) == "no site"


def test_verdicts_of_combined_conditions_are_as_before():
    when = Condition(made(), 0.5)
    assert holds(when | ~when, {when: False, ~when: True})


# Files


def test_a_file_of_the_users_with_a_like_name_stays(tmp_path):
    for name in ("o.partial", "d.partial"):
        (tmp_path / name).write_text("mine")
    files.save_directions(tmp_path / "o.safetensors", made())
    exchange.save_svec(tmp_path / "d.svec", made(), "llama")
    assert (tmp_path / "o.partial").read_text() == (tmp_path / "d.partial").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {
        "o.partial",
        "d.partial",
        "o.safetensors",
        "d.svec",
    }


def test_a_file_has_the_permissions_that_the_umask_gives(tmp_path):
    before = os.umask(0o027)
    try:
        files.save_directions(tmp_path / "o", made())
        exchange.save_svec(tmp_path / "d.svec", made(), "llama")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o640}


def test_a_file_that_fails_to_be_written_leaves_what_was_there(tmp_path, monkeypatch):
    files.save_directions(tmp_path / "o", made())
    before = (tmp_path / "o").read_bytes()

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(files, "save_file", full)
    refused(
        lambda: files.save_directions(tmp_path / "o", made(2)), "can't be written", "no space left"
    )
    assert (tmp_path / "o").read_bytes() == before and [
        path.name for path in tmp_path.iterdir()
    ] == ["o"]


def test_a_folder_that_is_missing_is_named(tmp_path):
    missing = tmp_path / "no" / "o"
    for save in (
        lambda: files.save_directions(missing, made()),
        lambda: exchange.save_svec(missing, made(), "llama"),
    ):
        refused(save, f"there is no folder {tmp_path / 'no'}")
    refused(lambda: files.save_directions(tmp_path, made()), "can't be written")
