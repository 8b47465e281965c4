"""What of a request reaches the engine, and what is refused in which words; nothing runs here."""

import json
import time
from typing import Any

import msgspec
import pytest

from moorage_common.http.message import Refusal
from moorage_runtime.body import Body, read_body
from moorage_runtime.contract import Contract

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
MESSAGES = [{"role": "user", "content": "Hi"}]


def read(path: str, body: bytes | dict[str, Any], limit: int = 4) -> Body:
    content = body if isinstance(body, bytes) else json.dumps({"model": "m", **body}).encode()
    return read_body(path, content, Contract(served="m", limit=limit))


def passed(path: str, **fields: Any) -> Any:
    return json.loads(read(path, fields).content)


def refused(path: str, body: bytes | dict[str, Any], limit: int = 4) -> tuple[str | None, str]:
    with pytest.raises(Refusal) as raised:
        read(path, body, limit)
    assert raised.value.answer.status == 400
    error = json.loads(raised.value.answer.body)["error"]
    assert error["type"] == "invalid_request_error"
    assert len(raised.value.answer.body) < 1000
    return error["param"], error["message"]


def chat(**fields: Any) -> tuple[str | None, str]:
    return refused(CHAT, {"messages": MESSAGES, **fields})


def completion(**fields: Any) -> tuple[str | None, str]:
    return refused(COMPLETIONS, {"prompt": "x", **fields})


# -- known fields ------------------------------------------------------------------------------------------------------


def test_what_openai_s_client_sends_is_taken() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}
    effective = {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}], "name": "n"},
            {
                "role": "assistant",
                "content": None,
                "refusal": None,
                "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "1", "content": "4"},
        ],
        "model": "m", "max_completion_tokens": 5, "max_tokens": 5, "temperature": 0, "top_p": 0.5, "n": 2, "seed": 1,
        "stop": ["a"], "stream": True, "stream_options": {"include_usage": True}, "logprobs": True, "top_logprobs": 20,
        "frequency_penalty": 0.1, "presence_penalty": -2, "logit_bias": {"5": -100}, "tools": [tool],
        "tool_choice": "auto", "parallel_tool_calls": True, "response_format": {"type": "text"},
        "top_k": 5, "min_p": 0.1, "repeat_penalty": 1.1, "ignore_eos": True, "cache_prompt": False,
    }  # fmt: skip
    idle = {
        "user": "u", "store": False, "metadata": {"a": "b"}, "service_tier": "auto", "safety_identifier": "s",
        "prompt_cache_key": "k", "reasoning_effort": "low", "verbosity": "low", "modalities": ["text"],
    }  # fmt: skip

    assert passed(CHAT, **effective, **idle) == effective


def test_null_is_as_good_as_not_there() -> None:
    sent = {"prompt": "x", "max_tokens": None, "suffix": None, "best_of": None, "stop": None}

    assert passed(COMPLETIONS, **sent) == {"model": "m", "prompt": "x"}


@pytest.mark.parametrize("again", [b'"prompt":"b"', b'"\\u0070rompt": "b"', b'"prompt":null'])
def test_bad_input_47_a_field_that_comes_twice_is_refused(again: bytes) -> None:
    body = b'{"prompt": "a", "model": "m", %s}' % again

    assert refused(COMPLETIONS, body) == ("prompt", '"prompt": it is there twice.')


@pytest.mark.parametrize(
    "name",
    [
        *("chat_template", "chat_template_kwargs", "id_slot", "lora", "samplers", "n_discard", "n_predict", "n_keep"),
        *("prompt_embeds", "guided_regex", "cache_salt", "reasoning_format", "web_search_options", "audio", "x" * 5000),
    ],
)
@pytest.mark.parametrize("value", [None, 1, {}])
def test_bad_input_49_an_unknown_field_is_named(name: str, value: object) -> None:
    for param, message in (chat(**{name: value}), completion(**{name: value})):
        assert param == name[:100]
        assert name[:100] in message


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","prompt":"a",%s}' % b",".join(b'"%d":1' % number for number in range(380_000)),
        b'{"model":"m","prompt":"a","metadata":{%s}}' % b",".join(b'"%d":1' % number for number in range(380_000)),
        b'{"model":"m",%s"prompt":1}' % (b'"prompt":1,' * 380_000),
        b'{"model":"m","prompt":"a","logit_bias":{%s}}' % b",".join(b'"%d":1' % n for n in range(380_000)),
        b'{"model":"m","prompt":"a","stop":[%s1]}' % (b"[]," * 1_300_000),
        b'{"model":"m","prompt":[%s[1]]}' % (b"[1]," * 1_000_000),
        b'{"model":"m","prompt":[%s"a"]}' % (b'"a",' * 1_000_000),
        b'{"model":"m","prompt":"a","json_schema":%s}' % (b'{"a":' * 690_000 + b"1" + b"}" * 690_000),
    ],
    ids=["unknown", "metadata", "twice", "members", "values", "token-lists", "prompts", "deep"],
)
def test_bad_input_47_four_mebibytes_of_keys_are_refused_at_once(body: bytes) -> None:
    assert len(body) > 3_900_000
    begun = time.process_time()

    refused(COMPLETIONS, body)

    assert time.process_time() - begun < 0.5  # under 0.1 on an idle machine; the quadratic engine took minutes


def test_bad_input_47_deep_and_wide_values_are_refused() -> None:
    deep: Any = 1
    for _ in range(70):
        deep = [deep]
    assert "64 deep" in chat(messages=[{"role": "user", "content": "x", "y": deep}])[1]
    wide = {str(number): 1 for number in range(1025)}
    assert "1027 members" in chat(messages=[{"role": "user", "content": "x", **wide}])[1]
    assert "100000 names" in chat(messages=[{"role": "user", "content": "x", "y": [[]] * 100_001}])[1]


@pytest.mark.parametrize("name", ["model", "prompt", "stop", "grammar", "json_schema", "logit_bias"])
@pytest.mark.parametrize("text", [r'"\ud800"', r'{"\ud800": 1}', r'["\ud800"]', "[" * 900 + "]" * 900])
def test_bad_input_47_half_a_surrogate_pair_or_a_pit_is_a_fault_of_its_field(name: str, text: str) -> None:
    body = {"model": '"m"', "prompt": '"x"', name: text}

    param, _ = refused(COMPLETIONS, b"{%s}" % ",".join(f'"{key}": {value}' for key, value in body.items()).encode())

    assert param in {name, None}


# -- defaults ----------------------------------------------------------------------------------------------------------

DEFAULTS = {"temperature": msgspec.Raw(b"0.5"), "max_tokens": msgspec.Raw(b"7")}


def with_defaults(path: str, **fields: Any) -> Any:
    content = json.dumps({"model": "m", **fields}).encode()
    return json.loads(read_body(path, content, Contract(served="m", limit=4, defaults=DEFAULTS)).content)


@pytest.mark.parametrize(("path", "what"), [(CHAT, {"messages": MESSAGES}), (COMPLETIONS, {"prompt": "x"})])
def test_a_field_that_is_left_out_is_the_default(path: str, what: dict[str, Any]) -> None:
    assert with_defaults(path, **what) == {"model": "m", **what, "temperature": 0.5, "max_tokens": 7}
    assert with_defaults(path, **what, temperature=None, max_tokens=9) == {
        **{"model": "m", **what},
        **{"temperature": 0.5, "max_tokens": 9},
    }


def test_what_a_request_says_is_what_it_gets_even_if_it_is_nothing() -> None:
    assert with_defaults(COMPLETIONS, prompt="x", temperature=0)["temperature"] == 0


def test_the_other_name_of_a_field_says_it_too() -> None:
    found = with_defaults(CHAT, messages=MESSAGES, max_completion_tokens=3)
    assert (found["max_completion_tokens"], "max_tokens" in found) == (3, False)
    assert with_defaults(CHAT, messages=MESSAGES, max_completion_tokens=None)["max_tokens"] == 7


def test_defaults_make_no_bad_request_good() -> None:
    with pytest.raises(Refusal):
        with_defaults(COMPLETIONS, prompt="x", temperature="hot")


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, -1, 2**31, 2**64, 1e10, 1.5, "5", [], True])
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_bad_input_49_max_tokens_is_told_as_it_was_sent(name: str, value: object) -> None:
    param, message = chat(**{name: value})

    assert param == name
    assert json.dumps(value) in message
    assert "1 to 2147483647" in message


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 0}, {"n": 1_000_000}, {"n": 5}, {"best_of": 2}, {"logprobs": 21}, {"n_probs": -1}, {"echo": True},
        {"temperature": "hot"}, {"temperature": -1}, {"temperature": 1e40}, {"top_p": 2}, {"top_k": 2**31},
        {"seed": 2**70}, {"suffix": "x"}, {"stop": ["x"] * 17}, {"stop": 5}, {"logit_bias": [1]},
        {"stop": ""}, {"stop": ["a", ""]}, {"logit_bias": {"a": 1}}, {"logit_bias": {"-1": 1}},
        {"logit_bias": {"1": 101}}, {"logit_bias": {"1": -100.5}}, {"logit_bias": {"9" * 20: 1}},
        {"stream": "yes"}, {"stream_options": 5}, {"prompt": 5}, {"prompt": {}},
    ],
)  # fmt: skip
def test_bad_input_49_a_value_out_of_range_names_its_field(fields: dict[str, Any]) -> None:
    assert completion(**fields)[0] == next(iter(fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": []}, {"messages": None}, {"messages": "x"}, {"messages": [5]}, {"messages": [{"content": "x"}]},
        {"messages": [{"role": "user", "content": 5}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"type": "x", "function": {}}]}]},
        {"tools": "x"}, {"tools": [{"type": "x"}]}, {"tools": [{"type": "function", "function": {}}]},
        {"tool_choice": "f"}, {"top_logprobs": 21}, {"logprobs": 10**9}, {"modalities": ["audio"]},
        {"response_format": "json"}, {"response_format": {"type": "xml"}},
        {"response_format": {"type": "json_schema"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
        {"response_format": {"type": "json_schema", "schema": {}}},
        {"response_format": {"type": "json_object", "json_schema": {"schema": {}}}},
        {"response_format": {"type": "text", "schema": {}}},
    ],
)  # fmt: skip
def test_bad_input_49_what_the_engine_would_fail_on_is_a_fault_of_the_request(fields: dict[str, Any]) -> None:
    assert chat(**fields)[0] == next(iter(fields))


def test_bad_input_49_more_messages_than_a_chat_may_have_are_refused() -> None:
    said = [{"role": role, "content": "x"} for role in ("user", "assistant")]

    assert chat(messages=said * 1024 + MESSAGES) == (
        "messages",
        '"messages": 2049 messages are in one request; at most 2048 are possible.',
    )
    assert len(passed(CHAT, messages=said * 1024)["messages"]) == 2048


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "video_url", "video_url": {"url": "file:///etc/passwd"}},
    ],
)
def test_bad_input_51_only_text_is_taken(part: dict[str, Any]) -> None:
    param, message = chat(messages=[{"role": "user", "content": [{"type": "text", "text": "x"}, part]}])

    assert param == "messages"
    assert part["type"] in message


# -- prompts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "places"),
    [("x", 1), ([1, 2, 3, 4, 5], 1), (["a", "b"], 2), ([[1, 2], [3]], 2), (["a"] * 4, 4), ([[1]] * 4, 4)],
)
def test_each_prompt_takes_a_place(prompt: object, places: int) -> None:
    found = read(COMPLETIONS, {"prompt": prompt})

    assert found.places == places
    assert json.loads(found.content)["prompt"] == prompt


def test_each_answer_takes_a_place() -> None:
    assert read(COMPLETIONS, {"prompt": ["a", "b"], "n": 2}).places == 4
    assert "6 answers" in completion(prompt=["a", "b"], n=3)[1]


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        [""],
        ["a", ""],
        [],
        [[]],
        [[], [1]],
        None,
        ["a", 5],
        [5, "a"],
        [[1], "a"],
        ["a", None],
        [-1],
        [2**31],
        [1.5],
        [[[1]]],
        5,
    ],
)
def test_bad_input_50_a_prompt_that_is_none_is_refused(prompt: object) -> None:
    assert completion(prompt=prompt)[0] == "prompt"


@pytest.mark.parametrize("one", ["x", [1]])
@pytest.mark.parametrize("count", [5, 100_000])
def test_bad_input_50_more_prompts_than_slots_are_refused_with_both_numbers(one: object, count: int) -> None:
    param, message = completion(prompt=[one] * count)

    assert param == "prompt"
    assert f"{count} prompts" in message
    assert "at most 4" in message


# -- schemas -----------------------------------------------------------------------------------------------------------


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        5, "x", [], nested(64), nested(400), {"enum": ["x" * 70_000]},
        {"$ref": "http://example.org/x"}, {"properties": {"a": {"$ref": "file:///etc/passwd"}}},
        {"pattern": "a" * 257}, {"items": {"pattern": "^a{1001}$"}}, {"anyOf": [{"pattern": "(a{2,99999999999})+"}]},
    ],
)  # fmt: skip
def test_bad_input_49_a_schema_out_of_bounds_is_refused(schema: Any) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}

    assert chat(json_schema=schema)[0] == "json_schema"
    assert chat(tools=[tool])[0] == "tools"
    assert chat(response_format={"type": "json_schema", "json_schema": {"schema": schema}})[0] == "response_format"
    assert chat(response_format={"type": "json_object", "schema": schema})[0] == "response_format"


def test_a_usual_schema_is_passed_on() -> None:
    schema = {
        "$defs": {"a": {"type": "string", "pattern": "^[a-z]{2,10}$"}},
        "properties": {"pattern": {"$ref": "#/$defs/a"}, "$ref": {"type": "null"}, "b": nested(20)},
    }

    assert passed(COMPLETIONS, prompt="x", json_schema=schema)["json_schema"] == schema


@pytest.mark.parametrize(
    "pattern", ["a", "^a", r"^\d+$", r"^\bx$", r"^(a)\1$", "^(?=a)b$", "^a$|^b$", r"^\/$", r"^[\w]$"]
)
def test_bad_input_49_a_pattern_that_the_engine_would_leave_out_is_refused(pattern: str) -> None:
    assert chat(json_schema={"type": "string", "pattern": pattern})[0] == "json_schema"


@pytest.mark.parametrize("pattern", ["^[0-9]+$", r"^(?:a|b){2,3}$", r"^[^$]\$\.\n\x41\u0041.$"])
def test_a_pattern_that_the_engine_knows_is_passed_on(pattern: str) -> None:
    assert passed(COMPLETIONS, prompt="x", json_schema={"pattern": pattern})["json_schema"] == {"pattern": pattern}


ENUM = {"$defs": {"e": {"enum": ["a", "b"]}}, "allOf": [{"$ref": "#/$defs/e"}], "default": "a"}


@pytest.mark.parametrize(
    "schema",
    [
        {}, {"title": "x"}, {"type": "number"}, {"type": ["integer", "null"], "minimum": 1}, {"const": None}, ENUM,
        {"type": "string", "minLength": 1, "maxLength": 9}, {"type": "string", "format": "date-time"},
        {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2}, {"type": "object"},
        {"type": "array", "prefixItems": [{"type": "null"}], "minItems": 1, "maxItems": 1},
        {"type": "object", "additionalProperties": {"anyOf": [{"type": "null"}, {"oneOf": [{}]}]}},
        {"properties": {"not": {"enum": [1]}, "if": {}}, "required": ["if"], "additionalProperties": False},
        {"properties": {str(number): {} for number in range(310)}, "required": [str(n) for n in range(10)]},
        {"type": "object", "properties": {"a": {"type": "string", "examples": [{"not": 1}], "readOnly": True}}},
        {"$ref": "#/definitions/a", "definitions": {"a": {"enum": ["a", 1]}}, "description": "x", "$id": "#/x"},
    ],
)  # fmt: skip
def test_a_schema_that_is_enforced_is_passed_on(schema: dict[str, Any]) -> None:
    assert passed(COMPLETIONS, prompt="x", json_schema=schema)["json_schema"] == schema


@pytest.mark.parametrize(
    ("schema", "keyword"),
    [
        (False, "false"), (True, "true"), ({"items": False}, "false"), ({"not": {}}, "not"), ({"if": {}}, "if"),
        ({"type": "array", "contains": {}}, "contains"), ({"propertyNames": {}}, "propertyNames"),
        ({"dependentSchemas": {}}, "dependentSchemas"), ({"unevaluatedProperties": False}, "unevaluatedProperties"),
        ({"type": "object", "minProperties": 1}, "minProperties"), ({"patternProperties": {}}, "patternProperties"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"), ({"type": "integer", "multipleOf": 2}, "multipleOf"),
        ({"$dynamicRef": "#/$defs/a"}, "$dynamicRef"), ({"$ref": "#"}, "$ref"), ({"$ref": "#/$defs/a"}, "$ref"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, "$ref"), ({"type": []}, "type"),
        ({"type": "number", "minimum": 1}, "minimum"), ({"minLength": 1}, "minLength"), ({"type": "any"}, "type"),
        ({"type": "integer", "minimum": 4611686018427387904}, "minimum"),
        ({"type": "integer", "maximum": "1"}, "maximum"),
        ({"type": "integer", "minimum": 2, "exclusiveMaximum": 2}, "2 to 1"),
        ({"type": "array", "minItems": 1}, "minItems"), ({"items": {}, "maxItems": 1001}, "maxItems"),
        ({"type": "string", "minLength": 2, "maxLength": 1}, "minLength"),
        ({"type": "string", "pattern": "^a$", "maxLength": 1}, "maxLength"), ({"format": "email"}, "format"),
        ({"format": []}, "format"), ({"enum": []}, "enum"), ({"anyOf": {}}, "anyOf"),
        ({"const": 1, "type": "null"}, "const"), ({"anyOf": [{}], "oneOf": [{}]}, "oneOf"),
        ({"properties": {}, "anyOf": [{}]}, "properties"), ({"allOf": [{"type": "integer"}]}, "allOf"),
        ({"prefixItems": [{}], "items": {}}, "prefixItems"), ({"prefixItems": [{}], "minItems": 2}, "prefixItems"),
        ({"required": ["a"]}, "required"), ({"properties": {}, "required": ["a"]}, "required"),
        ({"properties": []}, "properties"),
        ({"properties": {str(number): {} for number in range(301)}}, "301 optional"),
    ],
)  # fmt: skip
def test_bad_input_49_a_keyword_that_the_engine_would_leave_out_is_refused(schema: Any, keyword: str) -> None:
    outer = {"$defs": schema["$defs"]} if isinstance(schema, dict) and "$defs" in schema else {}
    deep = {"type": "object", "properties": {"deep": {"type": "array", "items": schema}}, **outer}
    for asked, where in ((schema, "#"), (deep, "#/properties/deep/items")):
        param, message = completion(json_schema=asked)
        assert param == "json_schema"
        assert keyword in message
        assert f"(at {where}" in message or "(at #/$defs/a" in message


@pytest.mark.parametrize("grammar", [5, "x" * 70_000, 'root ::= "a"{5000}', "%llguidance {}\nstart: /((/"])
def test_bad_input_49_a_grammar_out_of_bounds_is_refused(grammar: object) -> None:
    assert completion(grammar=grammar)[0] == "grammar"


def test_two_grammars_are_one_too_many() -> None:
    assert completion(grammar="root ::= x", json_schema={})[0] == "grammar"
    tool = {"type": "function", "function": {"name": "f"}}
    assert chat(grammar="root ::= x", tools=[tool])[0] == "tools"
    assert chat(json_schema={}, response_format={"type": "json_object"})[0] == "json_schema"


# -- what an engine has not, or calls otherwise ------------------------------------------------------------------------


def test_a_field_that_the_engine_has_not_is_refused_by_its_name() -> None:
    contract = Contract(served="m", limit=4, refused=frozenset({"tools"}))
    body = {"model": "m", "messages": MESSAGES, "tools": []}
    with pytest.raises(Refusal) as raised:
        read_body(CHAT, json.dumps(body).encode(), contract)
    error = json.loads(raised.value.answer.body)["error"]
    assert (error["param"], "does not have it" in error["message"]) == ("tools", True)
    assert read_body(CHAT, json.dumps({**body, "tools": None}).encode(), contract)


def test_a_field_goes_by_the_engine_s_name_for_it_also_where_it_is_a_default() -> None:
    contract = Contract(
        served="m",
        limit=4,
        renamed={"repeat_penalty": "repetition_penalty"},
        defaults={"repeat_penalty": msgspec.Raw(b"1.1")},
    )
    body = json.dumps({"model": "m", "prompt": "x"}).encode()
    assert json.loads(read_body(COMPLETIONS, body, contract).content)["repetition_penalty"] == 1.1


@pytest.mark.parametrize(
    ("contract", "fields", "param"),
    [
        ({"chats_only": frozenset({"logprobs"})}, {"logprobs": 1}, "logprobs"),
        ({"one_answer": True}, {"n": 2}, "n"),
        ({"one_answer": True}, {"prompt": ["a", "b"]}, "prompt"),
        ({"vocabulary": 10}, {"logit_bias": {"3": 1, "10": 1}}, "logit_bias"),
    ],
)
def test_what_an_engine_cannot_do_in_a_completion_is_refused(
    contract: dict[str, Any], fields: dict[str, Any], param: str
) -> None:
    body = json.dumps({"model": "m", "prompt": "x", **fields}).encode()
    assert read_body(COMPLETIONS, body, Contract(served="m", limit=4))
    with pytest.raises(Refusal) as raised:
        read_body(COMPLETIONS, body, Contract(served="m", limit=4, **contract))
    assert json.loads(raised.value.answer.body)["error"]["param"] == param


def test_what_an_engine_has_in_chats_only_is_passed_on_there() -> None:
    contract = Contract(served="m", limit=4, chats_only=frozenset({"logprobs"}), one_answer=True, vocabulary=10)
    fields = {"logprobs": True, "n": 1, "logit_bias": {"9": 1}}
    found = read_body(CHAT, json.dumps({"model": "m", "messages": MESSAGES, **fields}).encode(), contract)
    assert json.loads(found.content).items() >= fields.items()


@pytest.mark.parametrize(
    ("wanted", "schema"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "object"}),
        ({"type": "json_object", "schema": {"type": "null"}}, {"type": "null"}),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "null"}}}, {"type": "null"}),
    ],
)
def test_a_format_goes_by_json_schema_where_the_engine_knows_only_that(wanted: Any, schema: Any) -> None:
    contract = Contract(served="m", limit=4, formats_as_schemas=True)
    body = {"model": "m", "response_format": wanted}
    found = json.loads(read_body(COMPLETIONS, json.dumps({**body, "prompt": "x"}).encode(), contract).content)
    assert (found.get("json_schema"), "response_format" in found) == (schema, False)
    chats = json.loads(read_body(CHAT, json.dumps({**body, "messages": MESSAGES}).encode(), contract).content)
    assert chats["response_format"] == wanted


# -- embeddings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["a", ["a", "b"], [1, 2], [[1], [2, 3]]])
def test_what_is_embedded_is_text_or_tokens_one_or_many(value: object) -> None:
    assert passed(EMBEDDINGS, input=value, encoding_format="base64", user="u") == {
        "model": "m",
        "input": value,
        "encoding_format": "base64",
    }


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "empty"),
        ([], "empty"),
        (["a", ""], "empty"),
        ([[]], "empty"),
        (["a", 1], "different types"),
        ([-1], "text, a list of token numbers"),
        ({"text": "a"}, "text, a list of token numbers"),
        (["a"] * 2049, "2049"),
        ([[1]] * 2049, "more than 2048"),
    ],
)
def test_bad_input_50_what_cannot_be_embedded_is_told(value: object, said: str) -> None:
    param, message = refused(EMBEDDINGS, {"input": value})
    assert param == "input"
    assert said in message


def test_embeddings_get_no_defaults_of_generation() -> None:
    contract = Contract(served="m", limit=4, defaults=DEFAULTS)
    body = json.dumps({"model": "m", "input": "x"}).encode()
    assert json.loads(read_body(EMBEDDINGS, body, contract).content) == {"model": "m", "input": "x"}


TEXT, IMAGE, FUSED, SIMILARITY = "/embeddings/text", "/embeddings/image", "/embeddings/fused", "/similarity"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (TEXT, {"texts": ["a"], "instruction": "i", "truncate": True}),
        (IMAGE, {"images": ["data:,"], "is_query": False}),
        (FUSED, {"texts": ["a"], "images": ["data:,"], "is_query": True}),
        (SIMILARITY, {"texts": ["a"], "images": ["data:,"]}),
        (SIMILARITY, {"images": ["data:,"]}),
    ],
)
def test_the_routes_of_the_embedding_service_name_no_model(path: str, body: dict[str, Any]) -> None:
    assert json.loads(read_body(path, json.dumps(body).encode(), Contract(served="m", limit=4)).content) == body


@pytest.mark.parametrize(
    ("path", "body", "param", "said"),
    [
        (TEXT, {"texts": []}, "texts", "empty"),
        (TEXT, {"texts": ["a", ""]}, "texts", "empty"),
        (TEXT, {"texts": "a"}, "texts", "array"),
        (TEXT, {"texts": ["a", 1]}, "texts", "str"),
        (TEXT, {"texts": ["a"] * 100_000}, "texts", "100000 texts"),
        (TEXT, {}, "texts", "missing"),
        (TEXT, {"texts": ["a"], "images": ["x"]}, "images", "not a field"),
        (TEXT, {"texts": ["a"], "model": "m"}, "model", "not a field"),
        (IMAGE, {"images": ["x"] * 65}, "images", "65 images"),
        (FUSED, {"texts": ["a"]}, "images", "missing"),
        (SIMILARITY, {}, "texts", 'so is "images"'),
    ],
)
def test_bad_input_50_lists_of_texts_and_images_are_bounded(
    path: str, body: dict[str, Any], param: str, said: str
) -> None:
    with pytest.raises(Refusal) as raised:
        read_body(path, json.dumps(body).encode(), Contract(served="m", limit=4))
    error = json.loads(raised.value.answer.body)["error"]
    assert (raised.value.answer.status, error["param"]) == (400, param)
    assert said in error["message"]
