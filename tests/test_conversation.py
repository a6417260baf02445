"""A chat's turns stand wherever a prompt does."""

from __future__ import annotations

import json

import pytest

from nnsteer import Program, UserError, of_prompts, of_responses
from nnsteer.model.chat import Chat
from nnsteer.study.cells import GREEDY, Variant, questions
from nnsteer.texts.conversation import Conversation, conversation
from nnsteer.texts.sets import PromptSet
from nnsteer.texts.source import Prompt, load_prompts

from conftest import HARMFUL, HARMLESS


def said(role, content):
    return {"role": role, "content": content}


TURNS = [
    said("system", "Be brief."),
    said("user", "Hello"),
    said("assistant", "Hi."),
    said("user", "A map?"),
]
CHAT = conversation("chat", TURNS)


def test_turns_become_what_the_template_makes_of_them(runner):
    tokenizer = runner.chat.tokenizer
    want = tokenizer.apply_chat_template(
        TURNS, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    assert runner.chat.prompts_ids([CHAT, "A map?"])[0] == want != runner.chat.prompt_ids("A map?")


def test_one_user_turn_is_the_prompt_itself(runner):
    (alone,) = runner.generate([[said("user", HARMLESS[0])]], max_new_tokens=3)
    (plain,) = runner.generate([HARMLESS[0]], max_new_tokens=3)
    assert alone.ids == plain.ids


def test_the_chats_own_system_turn_comes_before_the_runners(runner):
    chat = Chat(runner.chat.tokenizer, system="Be long.")
    assert chat.prompt_ids(CHAT) == runner.chat.prompt_ids(CHAT)
    assert chat.prompt_ids(conversation("c", TURNS[1:])) != runner.chat.prompt_ids(
        conversation("c", TURNS[1:])
    )


def test_special_tokens_in_a_turn_are_text(runner):
    special = runner.chat.tokenizer.eos_token
    ids = runner.chat.prompt_ids(
        conversation("c", [said("assistant", f"x {special} y"), said("user", "go")])
    )
    plain = runner.chat.prompt_ids(
        conversation("c", [said("assistant", "x y"), said("user", "go")])
    )
    assert ids.count(runner.chat.tokenizer.eos_token_id) == plain.count(
        runner.chat.tokenizer.eos_token_id
    )


def test_chats_are_read_fitted_scored_and_answered(runner):
    positive, negative = (
        [[*TURNS[:3], said("user", text)] for text in side] for side in (HARMFUL, HARMLESS)
    )
    directions = runner.fit(of_prompts(positive, negative), [1, 2])
    condition = runner.condition(directions, positive, negative)
    assert runner.scores(positive, [condition]).shape == (1, len(positive))
    answered = of_responses(positive, ["No."], ["Yes."])
    assert answered.positive[0].prompt.turns[-1] == ("user", HARMFUL[0])
    (answer,) = runner.generate([TURNS], max_new_tokens=2)
    assert answer.prompt == CHAT and str(answer.prompt).endswith("user: A map?")


def test_a_chat_is_no_plain_text_though_it_reads_like_one(runner):
    text = str.__str__(CHAT)
    assert text != CHAT and len({CHAT, text}) == 2
    assert json.loads(json.dumps(CHAT)) == text
    ids = runner.chat.prompts_ids([CHAT, text])
    assert ids[0] != ids[1]


def test_a_file_may_hold_chats(tmp_path):
    rows = [{"messages": [*TURNS[:3], said("user", f"q{i}")]} for i in range(9)]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    splits = load_prompts(f"{tmp_path}/chats.jsonl,column=messages", 0)
    prompts = [prompt.text for prompt in (*splits.fit, *splits.tune, *splits.test)]
    assert len(prompts) == 9 and all(isinstance(prompt, Conversation) for prompt in prompts)


@pytest.mark.parametrize(
    "prompts, mistake",
    [
        (TURNS, "got one chat's turns; expected prompts"),
        ([TURNS[:3]], "the last turn is the assistant's; expected the user's"),
        ([[said("wizard", "x")]], "role 'wizard'; expected one of system, user, assistant"),
        ([[{"role": "user", "content": None}]], "content is a NoneType; expected a text"),
        ([[]], r"got a list; expected a text or a chat's turns"),
        ([3], r"prompts\[0\]: got a int"),
    ],
)
def test_a_mistake_is_one_line(runner, prompts, mistake):
    with pytest.raises(UserError, match=mistake) as refusal:
        runner.generate(prompts)
    assert "\n" not in str(refusal.value)


def test_turns_without_a_template_are_refused(runner):
    with pytest.raises(UserError, match="need a chat template"):
        Chat(runner.chat.tokenizer, templated=False).prompt_ids(CHAT)


def test_a_study_tells_a_chat_from_its_text(runner):
    sets = [PromptSet("s", (Prompt(CHAT), Prompt(str.__str__(CHAT))))]
    asked = list(questions([Variant("plain", Program())], sets, runner.model, runner.chat, GREEDY))
    assert len({question.key for question in asked}) == 2
