from __future__ import annotations

import json

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from nnsteer.errors import UserError
from nnsteer.organism.__main__ import Config, main
from nnsteer.organism.build import build_model, build_tokenizer
from nnsteer.organism.encoder import (
    EMBEDDING_STD,
    begin_with_words,
    open_encoder,
    sentence_vectors,
    word_vectors,
)
from nnsteer.organism.train import Example, meaning_loss

WORDS = ("steal", "bake", "paint", "the", "bread", "house", "boat", "##s", "s")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A BERT of two layers in the hub's format."""
    out = tmp_path_factory.mktemp("encoder")
    vocab = {word: i for i, word in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS))}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(out)
    torch.manual_seed(0)
    shape = BertConfig(
        vocab_size=len(vocab),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    BertModel(shape).save_pretrained(out)
    return str(out)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(["Steal the bread", "the breads", "Bake the house", "a zebra"] * 20, 330)


def token(tokenizer, text):
    (found,) = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def test_a_words_vector_is_the_encoders_own_and_a_part_of_a_word_has_the_parts(folder, tokenizer):
    encoder = open_encoder(folder)
    width = 16
    vectors = word_vectors(encoder, tokenizer, width)
    table = encoder.model.get_input_embeddings().weight.detach()
    vocab = encoder.tokenizer.get_vocab()

    def gram(rows):
        return (rows[:, None] - rows[None]).norm(dim=-1)

    words = {"Steal": "steal", " the": "the", " bread": "bread", "s": "##s"}
    got = gram(vectors[[token(tokenizer, text) for text in words]])
    expected = gram(table[[vocab[name] for name in words.values()]])
    torch.testing.assert_close(
        got / got[0, 1], expected / expected[0, 1]
    )  # all components kept: distances are the encoder's
    assert vectors[tokenizer.all_special_ids].abs().max() == 0
    assert vectors[token(tokenizer, "z")].abs().max() == 0  # not in its vocabulary
    assert vectors[vectors != 0].std().item() == pytest.approx(1, abs=0.05)


def test_embeddings_begin_with_the_words_and_others_are_left(folder, tokenizer):
    encoder, model = open_encoder(folder), build_model("llama", tokenizer)
    before = model.get_input_embeddings().weight.detach().clone()
    vectors = word_vectors(encoder, tokenizer, 128)
    begin_with_words(model, encoder, tokenizer)
    after = model.get_input_embeddings().weight.detach()
    known = vectors.any(dim=1)
    assert known[token(tokenizer, " the")] and not known[tokenizer.bos_token_id]
    torch.testing.assert_close(after[known], EMBEDDING_STD * vectors[known])
    assert torch.equal(after[~known], before[~known])
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_a_sentences_vector_does_not_depend_on_its_batch(folder):
    encoder = open_encoder(folder)
    texts = ["steal", "bake the bread and paint the house", "paint the boats", "bake bread"]
    done = []
    together = sentence_vectors(encoder, texts, done.append)
    alone = torch.cat([sentence_vectors(encoder, [text], lambda _: None) for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(4))
    assert sum(done) == 4


def test_the_meaning_is_read_from_the_prompts_tokens_alone():
    reader = torch.nn.Linear(3, 3)
    with torch.no_grad():
        reader.weight.copy_(torch.eye(3))
        reader.bias.zero_()
    states = torch.randn(3, 4, 3)
    states[0, :2] = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    states[2, :1] = torch.tensor([[0.0, 0.0, 5.0]])
    agrees = Example(2, [1, 2, 3], torch.tensor([1.0, 1.0, 0.0]))
    opposes = Example(1, [1, 2, 3, 4], torch.tensor([0.0, 0.0, -1.0]))
    loss = meaning_loss(reader, states, [agrees, Example(1, [1, 2]), opposes])
    assert loss.item() == pytest.approx((0 + 2) / 2, abs=1e-6)
    assert meaning_loss(reader, states, [Example(1, [1, 2])]).item() == 0


def test_an_organism_is_trained_with_an_encoder(folder, tmp_path, monkeypatch):
    rows = [
        {"prompt": f"{verb} the {thing}", "harmful": verb == "Steal"}
        for verb in ("Steal", "Bake")
        for thing in WORDS[4:7]
    ]
    path, out = tmp_path / "rows.jsonl", tmp_path / "mine"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows * 4))
    main(Config(out=out, data=str(path), encoder=folder, epochs=4, vocab_size=320))
    facts = json.loads((out / "training.json").read_text())
    assert facts["encoder"] == folder and len(facts["encoder_weights"]) == 16
    assert facts["losses"][-1] < facts["losses"][0]
    main(Config(out=tmp_path / "without", data=str(path), epochs=4, vocab_size=320))
    without = json.loads((tmp_path / "without" / "training.json").read_text())
    assert without["losses"][0] != facts["losses"][0]  # it began with the words
    monkeypatch.setattr("nnsteer.organism.__main__.begin_with_words", lambda *_: None)
    main(
        Config(out=tmp_path / "meanings", data=str(path), encoder=folder, epochs=4, vocab_size=320)
    )
    meanings = json.loads((tmp_path / "meanings" / "training.json").read_text())
    assert (
        meanings["losses"][0] == without["losses"][0]
        and meanings["losses"][-1] != without["losses"][-1]
    )  # and learnt meanings


def test_an_encoder_that_is_not_there(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "harmful": true}\n' * 4)
    with pytest.raises(UserError, match=r"--encoder .*nowhere.*give a folder"):
        main(Config(out=tmp_path / "out", data=str(path), encoder=str(tmp_path / "nowhere")))
    assert not (tmp_path / "out").exists()
