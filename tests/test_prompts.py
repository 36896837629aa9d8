"""What a model is shown, and how its answers are read."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from rwml_gym.errors import InvalidConfigError
from rwml_gym.prompts import STYLES, Prompts
from rwml_gym.transitions import Turn

TASK = "Put the mug into the kitchen."
TURNS = [Turn("", "You are in the bedroom."), *(Turn(f"look {i}", f"You see mug {i}.") for i in range(6))]
fixture_once = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
states = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)


@pytest.fixture
def tokenizer(tiny):
    return tiny[1]


@pytest.fixture(params=STYLES)
def prompts(request, tokenizer) -> Prompts:
    return Prompts(tokenizer, request.param, history=3, max_tokens=400)


def test_a_transcript_goes_on_where_the_world_would_answer(tokenizer):
    prompts = Prompts(tokenizer, "transcript", history=2)
    assert tokenizer.decode(prompts.predict(TURNS[:3], "take mug", TASK)) == (
        "A transcript of a text world. After each command the world answers with what happens.\n"
        "Task: Put the mug into the kitchen.\n\n"
        "> look 0\nYou see mug 0.\n> look 1\nYou see mug 1.\n> take mug\n"
    )
    assert tokenizer.decode(prompts.act(TURNS[:3], TASK)).endswith("> look 1\nYou see mug 1.\n>")


def test_a_chat_uses_the_template_and_asks_for_tags(tokenizer):
    prompts = Prompts(tokenizer, "chat", history=2)
    text = tokenizer.decode(prompts.predict(TURNS[:3], "take mug", TASK))
    assert text.startswith("<|system|>")
    assert "between <next_state> and </next_state>" in text
    assert text.endswith("> take mug<|eos|><|assistant|>")
    act = tokenizer.decode(prompts.act(TURNS[:3], TASK))
    assert "next command" in act
    assert act.endswith("You see mug 1.<|eos|><|assistant|>")
    # The template's special tokens are special, not spelt out.
    assert prompts.act(TURNS, TASK)[-1] == tokenizer.convert_tokens_to_ids("<|assistant|>")


def test_the_first_turn_has_no_command(tokenizer):
    text = tokenizer.decode(Prompts(tokenizer).act(TURNS[:1], ""))
    assert text.endswith("happens.\n\nYou are in the bedroom.\n>")
    assert "Task" not in text


def test_only_the_last_turns_are_shown(prompts, tokenizer):
    text = tokenizer.decode(prompts.predict(TURNS, "take mug", TASK))
    assert [i for i in range(6) if f"mug {i}." in text] == [3, 4, 5]
    assert "bedroom" not in text


def test_long_prompts_lose_their_oldest_turns_and_keep_the_action(tokenizer):
    full = Prompts(tokenizer, history=6)
    longest = len(full.predict(TURNS, "take mug", TASK))
    for limit in (longest - 1, longest - 10, longest - 25):
        text = tokenizer.decode(Prompts(tokenizer, history=6, max_tokens=limit).predict(TURNS, "take mug", TASK))
        shown = [i for i in range(6) if f"mug {i}." in text]
        assert shown == list(range(6 - len(shown), 6))
        assert 0 < len(shown) < 6
        assert text.startswith("A transcript")
        assert text.endswith("> take mug\n")


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("limit", [1, 5, 40, 120])
def test_no_prompt_is_longer_than_the_limit_and_its_end_stays(tokenizer, style, limit):
    prompts = Prompts(tokenizer, style, history=2, max_tokens=limit)
    full = Prompts(tokenizer, style, history=1, max_tokens=10_000)
    turns = [TURNS[0], Turn("look", "You see a mug. " * 60)]
    for short, long in (
        (prompts.predict(turns, "take mug", TASK), full.predict(turns, "take mug", TASK)),
        (prompts.act(turns, TASK), full.act(turns, TASK)),
    ):
        assert len(short) == limit
        assert short == long[-limit:]


@pytest.mark.parametrize("style", STYLES)
def test_long_states_are_shown_in_part_and_say_so(tokenizer, style):
    prompts = Prompts(tokenizer, style, max_tokens=2_000, max_state=40)
    state = 'tool: {"order_id": "#W1", ' + "x" * 100
    turns = [Turn("", "user: Hi."), Turn("get_order()", state), Turn("f()", "y" * 40)]
    text = tokenizer.decode(prompts.predict(turns, "get_user()", TASK))
    assert f"\n{state[:40]} … [{len(state) - 40} more characters]\n" in text
    assert "user: Hi.\n" in text
    assert "y" * 40 + "\n" in text
    # What is predicted is the whole state.
    assert prompts.read_prediction(tokenizer.decode(prompts.target("z" * 100))) == "z" * 100


def test_a_service_is_asked_for_calls_and_words(tokenizer):
    transcript, chat = (Prompts(tokenizer, style, world="service") for style in STYLES)
    assert tokenizer.decode(transcript.predict(TURNS[:1], "f()", TASK)).startswith("A transcript of customer service.")
    assert "one tool call" in tokenizer.decode(chat.act(TURNS[:1], TASK))
    assert "the tool's result, word for word" in tokenizer.decode(chat.predict(TURNS[:1], "f()", TASK))
    call = 'Let me see.\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    assert chat.read_action(f"{call}\n") == call
    assert transcript.read_action("f()\ntool: 1") == "f()"


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"world": "circus"}, "game.*service.*actual 'circus'"),
        ({"max_state": -1}, "max_state of at least 0"),
        ({"style": "poem"}, "transcript.*actual 'poem'"),
        ({"history": 0}, "history of at least 1"),
        ({"max_tokens": 0}, "max_tokens of at least 1"),
    ],
)
def test_wrong_arguments_are_refused(tokenizer, arguments, match):
    with pytest.raises(InvalidConfigError, match=match):
        Prompts(tokenizer, **arguments)


def test_a_chat_without_template_names_the_fix(tokenizer):
    tokenizer.chat_template = None
    with pytest.raises(InvalidConfigError, match="use 'transcript'"):
        Prompts(tokenizer, "chat")
    Prompts(tokenizer, "transcript")


# Reading


@pytest.mark.parametrize(
    "state",
    [
        "Nothing happens.",
        "You arrive.\nOn the table 1, you see a mug 2.\n\nThe mug 2 is > 3 years old.",
        "> quoted",
        "naïve → 日本 🙂",
    ],
)
def test_a_target_is_read_back_as_the_state(prompts, tokenizer, state):
    assert prompts.read_prediction(tokenizer.decode(prompts.target(state))) == state


@given(state=states)
@fixture_once
@example(state="a\n\n b")
def test_any_target_is_read_back_as_the_state(prompts, tokenizer, state):
    # What ends a state cannot be part of one; white space around it does not count.
    assume(not any(mark in state for mark in ("\n>", "<next_state>", "</next_state>")))
    assert prompts.read_prediction(tokenizer.decode(prompts.target(state))) == state.strip()


def test_a_target_ends_where_sampling_stops(prompts, tokenizer):
    (stop,) = prompts.prediction_stop
    assert tokenizer.decode(prompts.target("You see\na mug.")).endswith(stop)


def test_a_transcript_prediction_ends_at_the_next_command(tokenizer):
    prompts = Prompts(tokenizer, "transcript")
    assert prompts.read_prediction("You see a mug.\n> take mug\nYou pick up") == "You see a mug."
    assert prompts.read_prediction("\n> take mug") == ""
    assert prompts.read_prediction("  \n ") == ""
    assert prompts.read_prediction("a > b\nc") == "a > b\nc"


def test_a_chat_prediction_is_what_stands_between_the_tags(tokenizer):
    prompts = Prompts(tokenizer, "chat")
    assert prompts.read_prediction("The mug moves. <next_state> You take it. </next_state>") == "You take it."
    # The closing tag is the stop string: it is cut off.
    assert prompts.read_prediction("So: <next_state>You take it.") == "You take it."
    assert prompts.read_prediction("<next_state>no</next_state> better: <next_state>yes") == "yes"
    for none in ("", "You take it.", "You take it.</next_state>", "<next_state>", "<next_state> </next_state>"):
        assert prompts.read_prediction(none) == ""


@given(
    text=st.text(max_size=120)
    | st.lists(st.sampled_from(["<next_state>", "</next_state>", "\n>", " ", "a"])).map("".join)
)
@fixture_once
def test_any_text_is_read_without_a_crash(prompts, text):
    prediction, action = prompts.read_prediction(text), prompts.read_action(text)
    assert prediction == prediction.strip()
    assert prompts.prediction_stop[0] not in prediction
    assert action == action.strip()
    assert len(action.splitlines()) <= 1
    assert action in text


@pytest.mark.parametrize(
    ("text", "action"),
    [
        (" go to kitchen\nYou are", "go to kitchen"),
        ("\n\n  look  \n", "look"),
        ("> take mug", "take mug"),
        (">take mug", "take mug"),
        ("", ""),
        (" \n\t\n", ""),
    ],
)
def test_an_action_is_the_first_line_that_says_something(prompts, text, action):
    assert prompts.read_action(text) == action
