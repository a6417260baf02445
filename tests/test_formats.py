from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from nnsteer.errors import UserError
from nnsteer.fit import random_like
from nnsteer.program import files
from nnsteer.program.condition import Condition
from nnsteer.program.program import Program, ablate, add, affine
from nnsteer.program.site import Site
from nnsteer.program.span import GENERATED, LAST_PROMPT

from conftest import MIXED


def test_directions_come_back_as_they_were(directions, tmp_path):
    files.save_directions(tmp_path / "d.safetensors", directions.values())
    back = files.load_directions(tmp_path / "d.safetensors")
    assert back == directions
    assert all(
        torch.equal(back[s].vector, d.vector) and torch.equal(back[s].origin, d.origin)
        for s, d in directions.items()
    )


def test_G4_programs_come_back_as_they_were_and_steer_the_same(runner, directions, tmp_path):
    when = ~Condition(directions[Site(1)], 0.123456789, "below", "cast", LAST_PROMPT)
    late = {Site(3): directions[Site(3)]}
    programs = {
        "nothing": Program(),
        "all": add(directions, 0.1) + ablate(late, 0.5, GENERATED) + affine(late, -1.0).when(when),
        "control": add(random_like(directions, 1)),
    }
    files.save_programs(tmp_path / "p.safetensors", programs)
    back = files.load_programs(tmp_path / "p.safetensors")
    assert back == programs and {hash(p) for p in back.values()} == {
        hash(p) for p in programs.values()
    }
    assert str(back["all"]) == str(programs["all"])
    for a, b in zip(
        runner.logits(MIXED, back["all"]), runner.logits(MIXED, programs["all"]), strict=True
    ):
        assert torch.equal(a, b)


def test_programs_that_differ_anywhere_are_not_equal(directions):
    when = Condition(directions[Site(1)], 0.5)
    variants = [
        add(directions), add(directions, 2.0), ablate(directions), affine(directions), add(directions, span=GENERATED),
        add(directions).when(when), add(directions).when(~when), add(random_like(directions, 0)), Program(),
    ]  # fmt: skip
    assert len(set(variants)) == len(variants)


def test_a_file_of_another_sort_is_refused_by_name(directions, tmp_path):
    files.save_directions(tmp_path / "d.safetensors", directions.values())
    with pytest.raises(
        UserError, match=r"d\.safetensors: expected programs saved by nnsteer, found directions"
    ):
        files.load_programs(tmp_path / "d.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="found something else"):
        files.load_directions(tmp_path / "x.safetensors")
    (tmp_path / "t.safetensors").write_text("not a tensor file")
    with pytest.raises(UserError, match="can't be read"):
        files.load_directions(tmp_path / "t.safetensors")
    with pytest.raises(UserError, match="can't be read"):
        files.load_directions(tmp_path / "missing.safetensors")
