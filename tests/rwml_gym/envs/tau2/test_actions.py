from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rwml_gym.envs.tau2.actions import InvalidAction, Speech, ToolRequest, find_calls, parse_action
from rwml_gym.envs.tau2.literals import MAX_DEPTH, MAX_INTEGER
from rwml_gym.envs.tau2.tools import ToolSpec


def spec(name, *required, **optional):
    kinds = {key: {"type": "string"} for key in required}
    kinds |= {key: {"type": kind} if kind else {} for key, kind in optional.items()}
    return ToolSpec(name, "Does it.", {"type": "object", "properties": kinds, "required": list(required)})


TOOLS = {
    tool.name: tool
    for tool in (
        spec("get_user", "user_id"),
        spec("calculate", "expression"),
        spec("list_airports"),
        spec("book", "user_id", flights="array", price="number", bags="integer", insured="boolean", more="object"),
        spec("store", value="", other=""),
    )
}
CALL = '{"name": "get_user", "arguments": {"user_id": "mia"}}'
OTHER = '{"name": "list_airports", "arguments": {}}'
CANNOT = "Error: Cannot read the call: "
NO_OBJECT = "Error: get_user: the arguments should be an object whose keys are the parameters."
NOT_LAST = "Error: Text after the tool call. A call has to be the whole action, or the last thing in it."
OTHER_NOTATION = 'Error: Cannot read the call. Write it as {"name": ..., "arguments": {...}} or name(argument="value").'
NO_CALL = 'Error: No tool call inside <tool_call>. Expected {"name": ..., "arguments": {...}}.'
MIA = ToolRequest("get_user", {"user_id": "mia"})
AIRPORTS = ToolRequest("list_airports", {})
# What JSON can say and both notations can hold.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-MAX_INTEGER, MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
PIECES = [
    *["<tool_call>", "</tool_call>", "<think>", "</think>", "```json\n", "```", "\n", " ", ",", ";", "Hello. "],
    *[CALL, OTHER, "get_user('mia')", "list_airports()", "book(", "calculate (", "unknown_tool(1)", "print(x)"],
    *[
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        '"',
        "'",
        "\\",
        '"name":',
        '"arguments":',
        "user_id=",
        "1e999",
        "-",
        "\ud800",
        "\0",
    ],
]
MESSY = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=12).map("".join)


def parse(text):
    return parse_action(text, TOOLS)


@pytest.mark.parametrize(
    "text",
    [
        CALL,
        f"  {CALL}\n",
        json.dumps(json.loads(CALL), indent=2),
        CALL.replace("arguments", "parameters"),
        CALL.replace('"', "'"),
        f"[{CALL}]",
        f"```json\n{CALL}\n```",
        f"```\n{CALL}\n```\n",
        f"```json {CALL}```",
        f"<tool_call>{CALL}</tool_call>",
        f"<tool_call>\n{CALL}\n</tool_call>\n",
        f"<tool_call>\n{CALL}",
        f"<tool_call>\n```json\n{CALL}\n```\n</tool_call>",
        f"Let me look it up. <tool_call>{CALL}</tool_call>",
        f"<tool_call>{CALL}</tool_call> Just a second.",
        f"Let me look it up.\n\n{CALL}",
        f"Let me look it up: {CALL}",
        f"Don't worry, [sic] it's {{fine}}.\n[see below]\n{CALL}",
        f"Let me look it up.\n```json\n{CALL}\n```",
        f"<think>\nget_user('eve')\nor {OTHER}?\n</think>\n\n{CALL}",
        f"get_user('eve')\n</think>\n{CALL}",
        f"{CALL}<think>Was that",
        '{"type": "function", "function": {"name": "get_user", "arguments": "{\\"user_id\\": \\"mia\\"}"}}',
        '{"id": "1", "function": {"name": "get_user", "arguments": {"user_id": "mia"}}}',
        '{"name": "get_user", "arguments": " {\\"user_id\\": \\"mia\\"} "}',
        '{"name": "get_user", "arguments": {"user_id": "eve", "user_id": "mia"}}',
        '{"name": "list_airports", "name": "get_user", "arguments": {"user_id": "mia"}}',
        '{"name": "get_user", "arguments": {"user_id": "mia",},}',
        '{"name": "get_user", "arguments": {"user_id": "m\\u0069a"}}',
        "get_user(user_id='mia')",
        'get_user(user_id="mia")',
        "get_user('mia')",
        "get_user(mia)",
        "get_user(user_id = mia)",
        "get_user('mi' \"a\")",
        "get_user(('mia'))",
        "get_user ('mia')",
        "get_user(\n    user_id='mia',\n)",
        "Let me look it up.\nget_user('mia')",
        "Let me look it up (it's quick).\n\n  get_user('mia')\n",
        "```python\nget_user('mia')\n```",
        "<tool_call>get_user('mia')</tool_call>",
        "get_user('mia');",
        "functions.get_user('mia')",
        "[get_user(user_id='mia')]",
        "```python\n[get_user(user_id='mia')]\n```",
        "Action: get_user('mia')",
        f"Tool call: {CALL}",
        '{"tool": "get_user", "args": {"user_id": "mia"}}',
        '{"tool_name": "get_user", "tool_args": {"user_id": "mia"}}',
        '{"tool": "get_user", "tool_input": {"user_id": "mia"}}',
        '{"action": "get_user", "action_input": {"user_id": "mia"}}',
        '{"action": {"name": "get_user", "arguments": {"user_id": "mia"}}}',
        '{"function": "get_user", "arguments": {"user_id": "mia"}}',
        '{"function_name": "get_user", "kwargs": {"user_id": "mia"}}',
        '{"thought": "Look it up.", "action": "get_user", "action_input": "{\\"user_id\\": \\"mia\\"}"}',
        '{"recipient_name": "functions.get_user", "parameters": {"user_id": "mia"}}',
        '{"tool_uses": [{"recipient_name": "functions.get_user", "parameters": {"user_id": "mia"}}]}',
        '{"type": "tool_use", "id": "1", "name": "get_user", "input": {"user_id": "mia"}}',
        '[{"type": "text", "text": "I look."}, {"type": "tool_use", "name": "get_user", "input": {"user_id": "mia"}}]',
        f'{{"function_call": {CALL}}}',
        f'{{"tool_call": {CALL}}}',
        f'{{"role": "assistant", "content": null, "function_call": {CALL}}}',
        f'{{"role": "assistant", "content": null, "tool_calls": [{{"type": "function", "function": {CALL}}}]}}',
        f'{{"role": "assistant", "content": "I look.", "tool_calls": [{CALL}]}}',
        f'Here: {{"role": "assistant", "tool_calls": [{CALL}]}}',
        f'{{"choices": [{{"index": 0, "message": {{"role": "assistant", "tool_calls": [{{"function": {CALL}}}]}}}}]}}',
        '{"get_user": {"user_id": "mia"}}',
        '{"thought": "Look it up.", "get_user": {"user_id": "mia"}}',
        '{"command": "get_user", "arguments": {"user_id": "mia"}}',
        f'{{"tool": {CALL}}}',
        f'{{"method": "tools/call", "params": {CALL}}}',
        '{"functionCall": {"name": "get_user", "args": {"user_id": "mia"}}}',
        f'{{"toolCalls": [{CALL}]}}',
        f'{{"output": [{{"type": "function_call", {CALL[1:]}]}}',
        f'[{CALL}, "and"]',
        f"<function_call>{CALL}</function_call>",
        f"<tool_use>\n{CALL}\n</tool_use>",
        f"<thinking>Which?</thinking>{CALL}",
    ],
)
def test_one_call_in_many_ways(text):
    assert parse(text) == MIA


@pytest.mark.parametrize("extra", ['"requestor": "user"', '"id": "7"', '"role": "user"', '"type": "function"'])
def test_other_keys_have_no_effect(extra):
    assert parse(f"{{{extra}, {CALL[1:]}") == MIA
    assert parse(f"{CALL[:-1]}, {extra}}}") == MIA
    assert parse(f'{{"function": {CALL}, {extra}}}') == MIA


def test_no_argument_reaches_what_calls_the_tool():
    for key in ("requestor", "tool_name", "self"):
        answer = parse(f'{{"name": "get_user", "arguments": {{"user_id": "mia", "{key}": "user"}}}}')
        assert answer == InvalidAction(f"Error: get_user: unexpected '{key}'; parameters: user_id.")
        assert parse(f"get_user('mia', {key}='user')") == answer


@pytest.mark.parametrize(
    "text",
    [
        OTHER,
        '{"name": "list_airports"}',
        '{"name": "list_airports", "arguments": null}',
        '{"name": "list_airports", "arguments": ""}',
        '{"name": "list_airports", "arguments": "{}"}',
        "list_airports()",
        "list_airports( )",
    ],
)
def test_no_arguments(text):
    assert parse(text) == AIRPORTS


def test_literals_of_json_and_python():
    wanted = ToolRequest(
        "book",
        {
            "user_id": 'm\'ia\n"x"',
            "flights": [{"number": "HAT1", "stops": []}, ["a"], None],
            "price": -1.5,
            "bags": 2,
            "insured": True,
            "more": {"a": {"b": False}},
        },
    )
    assert parse(json.dumps({"name": wanted.name, "arguments": wanted.arguments})) == wanted
    assert (
        parse(
            """book('m\\'ia\\n"x"', flights=[{'number': "HAT1", "stops": ()}, ('a',), None],
            price=-1.5, bags=2, insured=True, more={'a': {'b': False}})"""
        )
        == wanted
    )
    assert (
        parse(
            """book("m'ia
\\"x\\"", [{"number": "HAT1", "stops": []}, ["a"], null,], -15e-1, 2, true, more={"a": {"b": false}},)"""
        )
        == wanted
    )
    assert parse("store(.5, other=1.)") == ToolRequest("store", {"value": 0.5, "other": 1.0})
    assert parse(r"store('\x41\u00e9\U0001f600\/\d', '\ud83d\ude00\ud83d')") == ToolRequest(
        "store", {"value": "Aé😀/\\d", "other": "😀\ufffd"}
    )


@pytest.mark.parametrize(
    "text",
    [
        "Hello!",
        "Thanks (bye)",
        "Thanks(bye)",
        "I will check (see above)",
        "calculate (see above)",
        "Use print(x) for that.",
        "print(x)",
        "print('x')",
        "You could say get_user('mia')",
        "get_user('mia') returns a user.",
        "Please run\nget_user('mia')\nand tell me.",
        "get_user('mia')\nlist_airports()\nThat would be all.",
        "unknown_tool(x)",
        "unknown_tool (1)",
        "Please run\nunknown_tool(1)",
        "unknown_tool(1)\nunknown_tool(2)",
        "unknown_tool(f(1))",
        "get_user( and so on",
        "[Transferring you now]",
        "[]",
        "[1, 2]",
        '["get_user"]',
        "{smile}",
        '{"answer": 42}',
        '{"name": "Mia", "dob": "1990-01-01"}',
        '{"name": 5, "arguments": {}}',
        '{"tool": "hammer", "size": 3}',
        '{"action": "wait"}',
        '{"role": "assistant", "content": "Hello!"}',
        '{"function": {"x": 1}}',
        "[get_user, list_airports]",
        "Action: I cancel it.",
        "`get_user('mia')` returns a user.",
        "Result = good (calculate it)",
        "<b>Hello</b>",
        "A list:\n- get_user('mia')",
        "9**9**9",
        "__import__('os').system('true')",
        "🙂 日本語",
        "</tool_call>",
        "\u200b",
    ],
)
def test_prose_stays_prose(text):
    assert parse(text) == Speech(text)


def test_thoughts_are_not_for_the_user():
    assert parse("<think>Hm.</think>\n\nHello!\n") == Speech("Hello!")
    assert parse("Hm.</think>Hello!") == Speech("Hello!")
    assert parse("Hello! <think>Was that") == Speech("Hello!")


@pytest.mark.parametrize("text", ["", " \n\t", "<think>I wonder", "<think>I wonder</think> \n", "</think>"])
def test_nothing_is_refused(text):
    answer = parse(text)
    assert isinstance(answer, InvalidAction)
    assert "empty" in answer.message


@pytest.mark.parametrize(
    "text",
    [
        f"<tool_call>{CALL}</tool_call><tool_call>{OTHER}</tool_call>",
        f"<tool_call>{CALL}</tool_call>\nand\n<tool_call>{CALL}</tool_call>",
        f"<tool_call>{CALL}\n{OTHER}</tool_call>",
        f"[{CALL}, {OTHER}]",
        f'{{"role": "assistant", "tool_calls": [{CALL}, {OTHER}]}}',
        f'[{CALL}, "and", {OTHER}]',
        f'{{"tool_calls": [{{"function": {CALL}}}, {{"function": {CALL}}}]}}',
        "[get_user('mia'), list_airports()]",
        "functions.get_user('mia')\nfunctions.list_airports()",
        f"[{CALL},\n {CALL}]",
        f"{CALL}\n{OTHER}",
        f"{CALL}{OTHER}",
        f"{CALL}, {OTHER}",
        f"First {CALL} then {OTHER}",
        "get_user('mia')\nget_user('eve')",
        "get_user('mia')\n\nlist_airports()\n",
        "get_user('mia'); list_airports()",
        "First\nget_user('mia')\nthen\nlist_airports()",
        f"get_user('mia')\n{OTHER}",
        f"```json\n{CALL}\n```\n```json\n{OTHER}\n```",
    ],
)
def test_several_calls_are_refused(text):
    answer = parse(text)
    assert isinstance(answer, InvalidAction)
    assert "Make one call" in answer.message


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "get_usr", "arguments": {}}',
        '<tool_call>{"name": "get_usr", "arguments": {"a": 1}}</tool_call>',
        'I try\n{"name": "get_usr", "parameters": {}}',
        "get_usr('mia')",
        "get_usr(user_id='mia', more=[1, {'a': null}])",
        "```\nget_usr()\n```",
    ],
)
def test_tools_that_do_not_exist(text):
    assert parse(text) == InvalidAction("Error: Tool 'get_usr' not found.")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("get_user()", "Error: get_user: missing 'user_id'; parameters: user_id."),
        ("get_user(7)", "Error: get_user: 'user_id' should be a string, not 7."),
        ("get_user('mia', 'eve')", "Error: get_user: 2 arguments without a name, but the parameters are: user_id."),
        ("list_airports(1)", "Error: list_airports: 1 arguments without a name, but the parameters are: none."),
        ("get_user('mia', user_id='eve')", "Error: get_user: 'user_id' is given twice."),
        ("get_user(user_id='mia', user_id='eve')", CANNOT + "'user_id' is given twice at \"user_id='eve')\"."),
        ("book(user_id='mia', 'eve')", CANNOT + "expected name=value at \"'eve')\"."),
        ("get_user(#W1)", CANNOT + "expected a value, text in quotes, at '#W1)'."),
        ("get_user(mia li)", CANNOT + "expected ',' or ')' at 'li)'."),
        ("get_user('it's')", CANNOT + "expected ',' or ')' at \"s')\"."),
        ("get_user(user_id='mi", CANNOT + "text without closing quote at its end."),
        ("get_user('mia'", CANNOT + "expected ',' or ')' at its end."),
        ("get_user(open('x'))", CANNOT + "expected ',' or ')' at \"('x'))\"."),
        ("calculate(9**9**9)", CANNOT + "expected ',' or ')' at '**9**9)'."),
        ("get_user(01234)", CANNOT + "expected a value, text in quotes, at '01234)'."),
        ("store(1e999)", CANNOT + "number out of range at '1e999)'."),
        ("store(-Infinity)", CANNOT + "expected a value, text in quotes, at '-Infinity)'."),
        (f"store({MAX_INTEGER + 1})", CANNOT + "number out of range at '9223372036854775808)'."),
        ("store({1: 2})", CANNOT + "expected a name in quotes at '1: 2})'."),
        (f"store({'[' * 99}", f"Error: Cannot read the call: more than {MAX_DEPTH} levels at its end."),
        (CALL[:-1], CANNOT + "expected ',' or '}' at its end."),
        (f"<tool_call>{CALL[1:]}", NO_CALL),
        ('{"name": "store", "arguments": {"value": NaN}}', CANNOT + "expected a value, text in quotes, at 'NaN}}'."),
        ('{"name": "get_user", "arguments": ["mia"]}', NO_OBJECT),
        ('{"name": "get_user", "arguments": "{} and"}', NO_OBJECT),
        (f"{CALL}\nHere it is.", NOT_LAST),
        (f"{CALL} Here it is.", NOT_LAST),
        ('{"tool": "get_user", "user_id": "mia"}', "Error: get_user: missing 'user_id'; parameters: user_id."),
        ('{"role": "assistant", "tool_calls": [{"function": {"name": "get_usr", "arguments": "{}"}}]}',
         "Error: Tool 'get_usr' not found."),
        ('{"tool": "get_usr", "args": {}}', "Error: Tool 'get_usr' not found."),
        ('{"tool_calls": [{"function": {"name": "get_user", "arguments": "{mia"}}]}', NO_OBJECT),
        ('{"role": "assistant", "tool_calls": [', CANNOT + "expected a value, text in quotes, at its end."),
        ('{"get_user": "mia"}', NO_OBJECT),
        ("<function=get_user>{}</function>", OTHER_NOTATION),
        ('get_user: {"user_id": "mia"}', OTHER_NOTATION),
        ('get_user\n{"user_id": "mia"}', OTHER_NOTATION),
        ("<get_user><user_id>mia</user_id></get_user>", OTHER_NOTATION),
        ("user = get_user('mia')", OTHER_NOTATION),
        ("await get_user('mia')", OTHER_NOTATION),
        ("`get_user('mia')`", OTHER_NOTATION),
        ("**Action:** get_user('mia')", OTHER_NOTATION),
        ("```tool_code\nprint(default_api.get_user('mia'))\n```", OTHER_NOTATION),
        ('<|python_tag|>{"user_id": "mia"}', OTHER_NOTATION),
        ('<invoke name="get_user"><parameter name="user_id">mia</parameter></invoke>', OTHER_NOTATION),
        ('Action: get_user\nAction Input: {"user_id": "mia"}', OTHER_NOTATION),
        ("<tool_call></tool_call>", NO_CALL),
        ("<tool_call>mia</tool_call>", NO_CALL),
    ],
)  # fmt: skip
def test_what_is_refused(text, message):
    assert parse(text) == InvalidAction(message)


def test_messages_are_short():
    for text in (f"{'a_b' * 9999}(1)", f'{{"name": "{"x" * 9999}", "arguments": {{}}}}', f"get_user({'x' * 9999}=1)"):
        answer = parse(text)
        assert isinstance(answer, InvalidAction)
        assert len(answer.message) < 200


def test_numbers_at_the_limits():
    values = [MAX_INTEGER, -MAX_INTEGER, 1.7976931348623157e308, 5e-324, 1e-999]
    for value in values:
        assert parse(f"store({value!r})") == ToolRequest("store", {"value": value})


def test_deep_values_up_to_the_limit():
    assert isinstance(parse(f"store({'[' * MAX_DEPTH}{']' * MAX_DEPTH})"), ToolRequest)
    assert isinstance(parse(f"store({'[' * (MAX_DEPTH + 1)}{']' * (MAX_DEPTH + 1)})"), InvalidAction)


@given(VALUES, TEXT.filter(str.strip))
def test_arguments_come_back_as_they_are(value, word):
    wanted = ToolRequest("store", {"value": value, "other": [value]})
    calls = [
        json.dumps({"name": "store", "arguments": wanted.arguments}),
        json.dumps({"name": "store", "arguments": wanted.arguments}, indent=1, ensure_ascii=False),
        json.dumps({"function": {"arguments": json.dumps(wanted.arguments), "name": "store"}}),
        f"store(value={value!r}, other={[value]!r})",
        f"store({json.dumps(value)}, {[value]!r})",
        f"store(other={json.dumps([value])}, value={value!r})",
    ]
    for call in calls:
        # Tags may stand in the arguments: they win, as they do for the models that are trained on them.
        if not any(tag in call for tag in ("<think>", "</think>", "<tool_call>", "</tool_call>")):
            for text in (call, f"<think>{word}</think><tool_call>{call}</tool_call>", f"Hello.\n{call}"):
                answer = parse(text)
                assert answer == wanted
                # 1, 1.0 and True are equal, too.
                assert json.dumps(answer.arguments, sort_keys=True) == json.dumps(wanted.arguments, sort_keys=True)


@given(st.text(st.characters(exclude_characters="([{<", exclude_categories=["Cs"])))
def test_text_without_brackets_is_prose(text):
    assert parse(text) == (Speech(text.strip()) if text.strip() else parse(""))


@given(MESSY)
@example("{" * 500)
@example("[" * 500)
@example("get_user(" * 500)
@example('{"name":' * 500)
@example("store(" + "9" * 5000 + ")")
@example('{"name": "store", "arguments": {"value": ' + "9" * 5000 + "}}")
def test_anything_is_read(text):
    answer = parse(text)
    if isinstance(answer, ToolRequest):
        assert TOOLS[answer.name].convert(answer.arguments) == answer.arguments
        json.dumps(answer.arguments, allow_nan=False, ensure_ascii=False).encode()
    elif isinstance(answer, Speech):
        assert answer.text == answer.text.strip() != ""
        answer.text.encode()
    else:
        assert answer.message.startswith("Error: ")
        answer.message.encode()
    for call in find_calls(text, TOOLS):
        assert TOOLS[call.name].convert(call.arguments) == call.arguments


@pytest.mark.parametrize(
    "unit",
    [
        *["{", "[", "(", "a", " ", "\n", "\\", '"', "'", "`", ",", "1", "-", "a_", "\t(", "```json\n", "\ud800"],
        *["[\n", '{"\n', "['\n", '["a",\n', '["a",', '{"name":', '{"name":\n', '{"name":"', '{"name": "get_user",\n'],
        *["get_user(", "get_user(\n", "get_user('\n", "get_user(a,\n", "get_user()\n", "unknown_tool(1)\n", "store(["],
        *["<tool_call>", "</tool_call>", "<think>", "</think>", CALL, f"{CALL}\n", "get_user('mia')\n"],
    ],
)
def test_long_texts_are_read(unit):
    # Quadratic time would be minutes here; the suite's own patience is the limit.
    many = unit * (200_000 // len(unit))
    for text in (many, f"get_user({many})", f'Well,\n{{"name": "get_user", "arguments": {many}}}'):
        assert parse(text)
    find_calls(many, TOOLS)


def test_calls_are_found_anywhere():
    text = "Please run list_airports(), then get_user('mia') or get_user(user_id='eve'). Not get_usr('x')."
    assert find_calls(text, TOOLS) == [AIRPORTS, MIA, ToolRequest("get_user", {"user_id": "eve"})]
    assert find_calls("my_get_user('mia'), get_user ('mia'), get_user(it's), calculate(2 + 2), get_user()", TOOLS) == []
    assert find_calls("", TOOLS) == []
