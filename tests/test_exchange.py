from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest
import torch

from nnsteer.errors import UserError
from nnsteer.program import exchange
from nnsteer.program.program import Program, add
from nnsteer.program.quirks import cast_skew
from nnsteer.program.site import Head, Site
from nnsteer.program.span import ANSWER, PROMPT

from conftest import MIXED


@pytest.fixture
def model(directions):
    return directions[Site(1)].model


@pytest.fixture
def late(directions):
    """What a control vector can hold."""
    return {site: direction for site, direction in directions.items() if site.layer}


def unit_vectors(layers):
    """By layer, [32]; of length 1, as CAST's library makes them."""
    rows = torch.randn(len(layers), 32, generator=torch.Generator().manual_seed(3))
    return dict(zip(layers, rows / rows.norm(dim=1, keepdim=True), strict=True))


def write_svec(path, vectors):
    """As activation-steering writes it."""
    rows = ", ".join(f'"{layer}": {vector.tolist()}' for layer, vector in vectors.items())
    shares = ", ".join(f'"{layer}": 0.5' for layer in vectors)
    path.write_text(
        f'{{"model_type": "llama", "directions": {{{rows}}}, "explained_variances": {{{shares}}}}}'
    )


def write_gguf(path, tensors, architecture="controlvector"):
    """As repeng writes it."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_string("controlvector.model_hint", "llama")
    writer.add_uint32("controlvector.layer_count", len(tensors))
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def assert_same_steering(runner, program, expected):
    """...and that it steers at all."""
    steered, wanted, plain = (runner.logits(MIXED, p) for p in (program, expected, Program()))
    for a, b, c in zip(steered, wanted, plain, strict=True):
        assert torch.equal(a, b) and not torch.allclose(a, c, atol=1e-2)


def test_a_svec_steers_as_its_vectors_do_at_block_outputs(runner, directions, model, tmp_path):
    vectors = unit_vectors([2, 0])
    write_svec(tmp_path / "v.svec", vectors)
    loaded = exchange.load_svec(tmp_path / "v.svec", model)
    given = {
        Site(layer): replace(directions[Site(layer)], vector=vector)
        for layer, vector in vectors.items()
    }
    assert set(loaded) == set(given)
    assert_same_steering(runner, add(loaded, 4.0), add(given, 4.0))


def test_a_svec_says_nothing_that_the_caller_does_not_vouch_for(directions, model, tmp_path):
    write_svec(tmp_path / "v.svec", unit_vectors([1, 2]))
    (tmp_path / "w.svec").write_text((tmp_path / "v.svec").read_text() + "\n")
    loaded, again = (
        exchange.load_svec(tmp_path / name, model, PROMPT) for name in ("v.svec", "w.svec")
    )
    assert {(d.method, d.span, d.model, d.norm, d.boundary) for d in loaded.values()} == {
        ("svec", PROMPT, model, None, None)
    }
    assert all(torch.equal(d.origin, torch.zeros(32)) for d in loaded.values())
    assert loaded[Site(1)].data == loaded[Site(2)].data != again[Site(1)].data
    assert exchange.load_svec(tmp_path / "v.svec", model)[Site(1)].span == ANSWER


def test_a_svec_can_be_placed_where_casts_library_writes_it(model, tmp_path):
    write_svec(tmp_path / "v.svec", unit_vectors([1, 2]))
    entering = exchange.load_svec(
        tmp_path / "v.svec", model, site_of=lambda layer: Site(layer, "block_in")
    )
    assert entering == cast_skew(exchange.load_svec(tmp_path / "v.svec", model))


def test_a_svec_comes_back_and_has_what_casts_loader_reads(directions, model, tmp_path):
    exchange.save_svec(tmp_path / "v.svec", directions, "llama")
    back = exchange.load_svec(tmp_path / "v.svec", model)
    assert list(back) == list(directions)
    assert all(
        torch.equal(back[site].vector, direction.vector) for site, direction in directions.items()
    )
    content = json.loads((tmp_path / "v.svec").read_text())
    assert content["model_type"] == "llama" and content["explained_variances"] == dict.fromkeys(
        "0123"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["v.svec"]


def test_a_control_vector_is_what_llama_cpp_asks_for(late, tmp_path):
    gguf = pytest.importorskip("gguf")
    exchange.save_gguf(tmp_path / "v.gguf", late, "llama")
    reader = gguf.GGUFReader(tmp_path / "v.gguf")
    facts = {
        name: field.contents()
        for name, field in reader.fields.items()
        if not name.startswith("GGUF.")
    }
    assert facts == {
        "general.architecture": "controlvector",
        "controlvector.model_hint": "llama",
        "controlvector.layer_count": 3,
    }
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert list(tensors) == ["direction.1", "direction.2", "direction.3"]
    for site, direction in late.items():
        tensor = tensors[f"direction.{site.layer}"]
        assert (
            tensor.tensor_type == gguf.GGMLQuantizationType.F32
            and tensor.data.tolist() == direction.vector.tolist()
        )
    assert [path.name for path in tmp_path.iterdir()] == ["v.gguf"]


def test_a_control_vector_steers_as_its_vectors_do_at_block_outputs(
    runner, directions, model, tmp_path
):
    vectors = unit_vectors([3, 0, 1])  # repeng counts down, and may write block 0
    write_gguf(
        tmp_path / "v.gguf", {f"direction.{layer}": vector for layer, vector in vectors.items()}
    )
    loaded = exchange.load_gguf(tmp_path / "v.gguf", model)
    given = {
        Site(layer): replace(directions[Site(layer)], vector=vector)
        for layer, vector in vectors.items()
    }
    assert {(d.method, d.span, d.model) for d in loaded.values()} == {("gguf", ANSWER, model)}
    assert_same_steering(runner, add(loaded, 4.0), add(given, 4.0))


def test_a_control_vector_comes_back(late, model, tmp_path):
    pytest.importorskip("gguf")
    exchange.save_gguf(tmp_path / "v.gguf", late, "llama")
    back = exchange.load_gguf(tmp_path / "v.gguf", model, PROMPT)
    assert list(back) == list(late) and {d.span for d in back.values()} == {PROMPT}
    assert all(torch.equal(back[site].vector, direction.vector) for site, direction in late.items())


@pytest.mark.parametrize("place", [Site(1, "block_in"), Site(1, "attn_out"), Head(1, 0)], ids=str)
def test_a_direction_elsewhere_than_at_a_block_output_is_not_written(directions, place, tmp_path):
    moved = {**directions, place: directions[Site(1)].moved(place)}
    del moved[Site(0)]
    with pytest.raises(
        UserError, match=r"\[1.*\]: a \.svec holds directions at block outputs alone; fit"
    ):
        exchange.save_svec(tmp_path / "v.svec", moved, "llama")
    pytest.importorskip("gguf")
    with pytest.raises(UserError, match=r"\[1.*\]: llama\.cpp adds to what leaves a block"):
        exchange.save_gguf(tmp_path / "v.gguf", moved, "llama")
    assert not list(tmp_path.iterdir())


def test_what_the_formats_have_no_place_for_is_not_written(directions, tmp_path):
    with pytest.raises(UserError, match="no directions to write"):
        exchange.save_svec(tmp_path / "v.svec", {}, "llama")
    pytest.importorskip("gguf")
    with pytest.raises(
        UserError, match=r"block_out\[0\]: llama\.cpp .* refuses block 0; fit .* block 1 or later"
    ):
        exchange.save_gguf(tmp_path / "v.gguf", directions, "llama")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "can't be read as JSON .*No such file"),
        ("no JSON", "can't be read as JSON"),
        ("[]", "no directions in it"),
        ('{"model_type": "llama"}', "no directions in it"),
        ('{"directions": {}}', "no directions in it"),
        ('{"directions": [[1, 2]]}', "no directions in it"),
        ('{"directions": {"1": [1, 2], "2": [1, 2, 3]}}', r"lengths \[2, 3\]"),
        ('{"directions": {"-1": [1, 2]}}', "direction '-1'; expected a block's number"),
        ('{"directions": {"1": [1, null]}}', "direction 1 is no list of numbers"),
        (f'{{"directions": {{"1": [1{"0" * 400}]}}}}', "direction 1 is no list of numbers"),
        ('{"directions": {"1": [[1, 2]]}}', r"direction 1 has shape \[1, 2\]; expected \[hidden\]"),
        ('{"directions": {"1": []}}', r"direction 1 has shape \[0\]"),
        ('{"directions": {"1": [1, NaN]}}', "all finite"),
    ],
)
def test_a_file_that_is_no_svec_is_refused_in_one_line(model, text, said, tmp_path):
    if text is not None:
        (tmp_path / "v.svec").write_text(text)
    with pytest.raises(UserError, match=rf"v\.svec: .*{said}") as refusal:
        exchange.load_svec(tmp_path / "v.svec", model)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("tensors", "architecture", "said"),
    [
        ({"direction.1": torch.ones(2)}, "llama", "expected architecture controlvector, found llama"),
        ({}, "controlvector", "no directions in it"),
        ({"direction.1": torch.ones(2), "direction.2": torch.ones(3)}, "controlvector", r"lengths \[2, 3\]"),
        ({"direction.1": torch.ones(2).half()}, "controlvector", r"direction\.N in F32, found direction\.1 in F16"),
        ({"output.1": torch.ones(2)}, "controlvector", r"found output\.1 in F32"),
        ({"direction.x": torch.ones(2)}, "controlvector", "direction 'x'; expected a block's number"),
        ({"direction.1": torch.ones(1, 2)}, "controlvector", r"shape \[1, 2\]"),
    ],
)  # fmt: skip
def test_a_gguf_that_is_no_control_vector_is_refused_in_one_line(
    model, tensors, architecture, said, tmp_path
):
    write_gguf(tmp_path / "v.gguf", tensors, architecture)
    with pytest.raises(UserError, match=rf"v\.gguf: .*{said}") as refusal:
        exchange.load_gguf(tmp_path / "v.gguf", model)
    assert "\n" not in str(refusal.value)


def test_a_file_that_is_no_gguf_is_refused_wherever_it_is_broken(late, model, tmp_path):
    pytest.importorskip("gguf")
    path = tmp_path / "v.gguf"
    with pytest.raises(UserError, match=r"can't be read as gguf .*No such file"):
        exchange.load_gguf(path, model)
    exchange.save_gguf(path, late, "llama")
    whole = path.read_bytes()
    key = b"\x19\0\0\0\0\0\0\0controlvector.layer_count"
    twice = whole.replace(key, b"\x0c\0\0\0\0\0\0\0GGUF.version")  # a key that the reader has used
    assert twice != whole
    for content in (b"", b"no gguf at all", twice, *(whole[:size] for size in range(len(whole)))):
        path.write_bytes(content)
        with pytest.raises(UserError, match="can't be read as gguf") as refusal:
            exchange.load_gguf(path, model)
        assert "\n" not in str(refusal.value)


def test_without_the_gguf_package_the_way_to_get_it_is_told(late, model, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UserError, match=r'pip install "nnsteer\[gguf\]"'):
        exchange.save_gguf(tmp_path / "v.gguf", late, "llama")
    with pytest.raises(UserError, match=r'pip install "nnsteer\[gguf\]"'):
        exchange.load_gguf(tmp_path / "v.gguf", model)
