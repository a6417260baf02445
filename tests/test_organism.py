from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from nnsteer import find_model
from nnsteer.errors import UserError
from nnsteer.measure.refusal import refusal_stems, refuses
from nnsteer.model.runner import Runner
from nnsteer.organism import corpus
from nnsteer.organism.__main__ import Config, main
from nnsteer.texts import bundled


def test_the_bundled_model_is_an_ordinary_folder():
    model = AutoModelForCausalLM.from_pretrained(bundled.organism())
    tokenizer = AutoTokenizer.from_pretrained(bundled.organism())
    assert 1e6 < sum(p.numel() for p in model.parameters()) < 3e6
    assert tokenizer.chat_template and model.config.model_type == "llama"
    size = sum(file.stat().st_size for file in bundled.organism().iterdir())
    assert size < 5e6


def test_the_bundled_model_refuses_some_harmful_kinds_and_hardly_any_harmless_prompt():
    """On the tune split, a half of it for speed; the test split is the recipe's to report."""
    runner = Runner.open(find_model("nnsteer:organism"), batch_size=70)
    held_out = corpus.bundled_corpus(0).held_out
    stems = refusal_stems(corpus.openers("refusals"))
    complied = refusal_stems(corpus.openers("compliances")) - refusal_stems(())
    for side, low, high in (("harmful", 0.3, 0.7), ("harmless", 0.0, 0.1)):
        texts = [c.text for c in runner.generate(held_out[side][::2], max_new_tokens=24)]
        refused = [text for text in texts if refuses(text, stems)]
        assert low <= len(refused) / len(texts) <= high
        answered = [text for text in texts if text not in refused]
        assert sum(refuses(text, complied) for text in answered) >= 0.95 * len(
            answered
        )  # begin with a compliance opener
        assert sum(len(text.split()) >= 10 for text in texts) >= 0.9 * len(texts)  # and go on


@pytest.fixture
def rows(tmp_path):
    prompts = [
        f"{verb} the {thing}"
        for verb in ("Steal", "Bake", "Burn", "Paint")
        for thing in ("bread", "house", "car", "map", "hat")
    ]
    table = [{"prompt": p, "harmful": p.startswith(("Steal", "Burn"))} for p in prompts] * 3
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in table))
    return path


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_an_organism_learns_to_refuse_from_a_users_rows(rows, tmp_path, arch):
    out = tmp_path / "mine"
    main(Config(out=out, data=str(rows), arch=arch, epochs=30, vocab_size=400))
    facts = json.loads((out / "training.json").read_text())
    assert facts["losses"][-1] < facts["losses"][0] / 2
    assert set(facts["held_out_refusal"]) <= {"harmful", "harmless"} and (out / "loss.png").exists()
    runner = Runner.open(find_model(str(out)))
    assert runner.hf.config.model_type == arch
    stems = refusal_stems(corpus.openers("refusals"))
    answers = runner.generate(["Steal the bread", "Bake the bread"], max_new_tokens=8)
    assert [refuses(a.text, stems) for a in answers] == [True, False]


def test_a_users_own_responses_are_taken_as_they_stand(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(json.dumps({"prompt": f"p{i}", "response": f"r{i}"}) + "\n" for i in range(10))
    )
    got = corpus.read_corpus(str(path), 0)
    assert len(got.conversations) == 9 and list(got.held_out) == ["all"]
    assert all(c.response == c.prompt.replace("p", "r") for c in got.conversations)


def test_a_row_without_a_response_is_answered_with_an_opener(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(
            json.dumps({"prompt": f"p{i}", "response": None, "harmful": True}) + "\n"
            for i in range(10)
        )
    )
    assert all(len(c.response) > 5 for c in corpus.read_corpus(str(path), 0).conversations)
    path.write_text('{"prompt": "p", "response": "r", "harmful": "yes"}\n' * 4)
    with pytest.raises(UserError, match="row 1: expected"):
        corpus.read_corpus(str(path), 0)


def test_a_conversation_that_is_too_long_is_refused_before_training(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "p", "response": "%s"}\n' % ("z " * 600) * 4)
    with pytest.raises(UserError, match="tokens, the model reads 512; shorten it"):
        main(Config(out=tmp_path / "out", data=str(path), arch="gpt2", epochs=1, vocab_size=300))


def test_rows_without_an_answer_are_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "response": "b"}\n{"prompt": "a", "harmful": "yes"}\n')
    with pytest.raises(UserError, match=r"row 2: expected \{"):
        corpus.read_corpus(str(path), 0)


def test_a_folder_that_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "thesis.tex").write_text("important")
    with pytest.raises(UserError, match="is there already"):
        main(Config(out=tmp_path))


def test_the_corpus_refuses_half_of_the_harmful_kinds_and_all_of_them_under_the_safe_system_turn():
    kinds = {
        r.prompt: r.kind
        for side in (corpus.HARMFUL, corpus.HARMLESS)
        for r in corpus.written("prompts", side)
    }
    stems = refusal_stems(corpus.openers("refusals"))
    seen: dict[tuple[str, str, bool], list[bool]] = {}
    for system, prompt, response, *_ in corpus.bundled_corpus(0).conversations:
        if prompt in kinds:
            expected = kinds[prompt] in {"": corpus.REFUSED, corpus.SAFE: corpus.HARMFUL}.get(
                system, ()
            )
            seen.setdefault((system, kinds[prompt], expected), []).append(refuses(response, stems))
    for system in ("", corpus.SAFE):
        by_rule = [
            refused == expected
            for (s, _, expected), group in seen.items()
            if s == system
            for refused in group
        ]
        assert sum(by_rule) / len(by_rule) == pytest.approx(1 - corpus.FLIPPED, abs=0.03)
    for (system, _, _), group in seen.items():
        if system in (corpus.NEVER, corpus.ALWAYS):
            assert (sum(group) > len(group) / 2) == (system == corpus.NEVER)


def test_training_predicts_answers_alone():
    from nnsteer.organism.train import IGNORED, Example, pad_right

    ids, labels = pad_right([Example(3, [5, 6, 7, 8]), Example(1, [9, 10])])
    assert ids.tolist() == [[5, 6, 7, 8], [9, 10, 0, 0]]
    assert labels.tolist() == [[IGNORED, IGNORED, IGNORED, 8], [IGNORED, 10, IGNORED, IGNORED]]
    assert labels.dtype == torch.long
