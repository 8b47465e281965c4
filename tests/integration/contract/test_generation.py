"""Chats and completions, as OpenAI's client sees them."""

import json
from typing import Any

import httpx
import openai
import pytest

from tests.integration.contract.engines import CAPITAL, CONTEXT, COUNTING, MODEL, Subject
from tests.integration.runtime.conftest import Runtime

CHAT: Any = [{"role": "user", "content": CAPITAL}]
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["answer"],
    "additionalProperties": False,
}
FORMAT: Any = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
TOOL: Any = {
    "type": "function",
    "function": {"name": "count", "parameters": {"type": "object", "properties": {"to": {"type": "integer"}}}},
}


def complete(client: openai.OpenAI, prompt: Any = CAPITAL, **fields: Any) -> openai.types.Completion:
    """A completion without chance."""
    answer = client.completions.create(model=MODEL, prompt=prompt, **{"max_tokens": 12, "temperature": 0, **fields})
    assert isinstance(answer, openai.types.Completion)
    return answer


def chat(client: openai.OpenAI, **fields: Any) -> openai.types.chat.ChatCompletion:
    """A chat without chance."""
    asked = {"messages": CHAT, "max_tokens": 12, "temperature": 0, **fields}
    answer = client.chat.completions.create(model=MODEL, **asked)
    assert isinstance(answer, openai.types.chat.ChatCompletion)
    return answer


def test_a_completion_is_answered_with_the_tokenizer_s_counts(client: openai.OpenAI, subject: Subject) -> None:
    for prompt, tokens in subject.tokens.items():
        answer = complete(client, prompt, max_tokens=3)

        assert answer.object == "text_completion"
        assert answer.model == MODEL
        assert answer.choices[0].text
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (tokens, 3), prompt
        assert answer.usage.total_tokens == tokens + 3


def test_token_numbers_are_a_prompt(client: openai.OpenAI) -> None:
    answer = complete(client, [504, 3575, 282, 4649, 314], max_tokens=2)

    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 2)


def test_a_chat_is_answered(client: openai.OpenAI, subject: Subject) -> None:
    answer = chat(client)

    assert answer.object == "chat.completion"
    assert answer.model == MODEL
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in {"stop", "length"}
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == subject.chat_tokens
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_streamed_chat_is_the_same_with_its_usage_last(client: openai.OpenAI) -> None:
    whole = chat(client)
    stream = client.chat.completions.create(
        model=MODEL,
        messages=CHAT,
        max_tokens=12,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    with stream:
        chunks = list(stream)

    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(choice.delta.content or "" for choice in choices) == whole.choices[0].message.content
    assert [c.finish_reason for c in choices if c.finish_reason] == [whole.choices[0].finish_reason]
    assert choices[-1].finish_reason
    last = chunks[-1]
    assert last.choices == []
    assert last.usage is not None
    assert whole.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens, last.usage.total_tokens) == (
        whole.usage.prompt_tokens,
        whole.usage.completion_tokens,
        whole.usage.total_tokens,
    )


def test_a_streamed_completion_is_the_same(client: openai.OpenAI) -> None:
    whole = complete(client).choices[0].text
    with client.completions.create(model=MODEL, prompt=CAPITAL, max_tokens=12, temperature=0, stream=True) as stream:
        chunks = list(stream)

    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole
    assert len([chunk for chunk in chunks if chunk.choices and chunk.choices[0].text]) > 2  # it came in pieces


def test_a_stream_ends_with_done(runtime: Runtime) -> None:
    body = {"model": MODEL, "prompt": CAPITAL, "max_tokens": 3, "stream": True}
    with httpx.stream("POST", f"{runtime.url}/v1/completions", json=body, timeout=60) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]

    assert lines[-1] == "data: [DONE]"
    assert all(line.startswith("data: ") for line in lines)


def test_a_stop_ends_the_answer_and_is_not_in_it(client: openai.OpenAI) -> None:
    whole = complete(client, COUNTING).choices[0].text
    word = whole.split()[2]

    for stop in (word, [word, "never said"]):
        answer = complete(client, COUNTING, stop=stop)
        assert answer.choices[0].text == whole[: whole.index(word)]
        assert answer.choices[0].finish_reason == "stop"
    stream = client.completions.create(
        model=MODEL, prompt=COUNTING, max_tokens=12, temperature=0, stop=word, stream=True
    )
    with stream:
        text = "".join(chunk.choices[0].text for chunk in stream if chunk.choices)
    assert text == whole[: whole.index(word)]


def test_a_seed_decides(client: openai.OpenAI) -> None:
    def once(seed: int) -> str:
        return complete(client, temperature=1.5, seed=seed).choices[0].text

    once(0)  # from here on the prompt is cached, for each of them alike
    assert once(7) == once(7)
    assert len({once(seed) for seed in range(5)}) > 1


def test_n_gives_so_many_answers_or_is_refused(client: openai.OpenAI, subject: Subject) -> None:
    if "n" in subject.lacks:
        with pytest.raises(openai.BadRequestError) as failure:
            chat(client, n=3)
        refusal(failure, "n")
        return
    answer = chat(client, n=3, temperature=1.5, seed=1)

    assert sorted(choice.index for choice in answer.choices) == [0, 1, 2]
    assert all(choice.message.content for choice in answer.choices)
    assert len({choice.message.content for choice in answer.choices}) > 1


def test_the_tokens_of_all_answers_are_counted(client: openai.OpenAI, subject: Subject) -> None:
    # Without any chance vLLM gives one answer only.
    several: dict[str, dict[str, Any]] = {
        "n": {"n": 2, "temperature": 0.1},
        "prompts": {"prompt": [CAPITAL, COUNTING]},
    }
    for name, fields in several.items():
        if name in subject.lacks:
            with pytest.raises(openai.BadRequestError) as failure:
                complete(client, **fields)
            refusal(failure, name.rstrip("s"))
            continue
        answer = complete(client, **fields, max_tokens=3)
        assert answer.usage is not None
        assert len(answer.choices) == 2
        assert answer.usage.completion_tokens == 6


def test_more_answers_than_places_are_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as failure:
        chat(client, n=64)

    assert failure.value.param == "n"


def test_max_tokens_is_kept_by_both_names(client: openai.OpenAI) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        fields: dict[str, Any] = {"max_tokens": openai.omit, name: 2}
        answer = chat(client, **fields)
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 2
        assert answer.choices[0].finish_reason == "length"


def test_logprobs_of_a_chat(client: openai.OpenAI, subject: Subject) -> None:
    if "logprobs" in subject.lacks:
        with pytest.raises(openai.BadRequestError) as failure:
            chat(client, logprobs=True)
        refusal(failure, "logprobs")
        return
    answer = chat(client, max_tokens=3, logprobs=True, top_logprobs=2)

    assert answer.choices[0].logprobs is not None
    content = answer.choices[0].logprobs.content
    assert content is not None
    assert len(content) == 3
    for entry in content:
        assert entry.logprob <= 0
        assert len(entry.top_logprobs) == 2
        assert entry.top_logprobs[0].logprob >= entry.top_logprobs[1].logprob
        assert entry.top_logprobs[0].token == entry.token  # without chance, the likeliest one is taken
    assert "".join(entry.token for entry in content) == answer.choices[0].message.content


@pytest.mark.parametrize("streamed", [False, True])
def test_logprobs_of_a_completion(client: openai.OpenAI, subject: Subject, *, streamed: bool) -> None:
    fields: dict[str, Any] = {"model": MODEL, "prompt": CAPITAL, "max_tokens": 3, "temperature": 0, "logprobs": 2}
    if "logprobs of completions" in subject.lacks:
        with pytest.raises(openai.BadRequestError) as failure:
            client.completions.create(**fields, stream=streamed)
        refusal(failure, "logprobs")
        return
    answer: Any = client.completions.create(**fields, stream=streamed)
    choices = [one.choices[0] for one in (answer if streamed else [answer]) if one.choices]
    told = [choice.logprobs for choice in choices if choice.logprobs]

    tokens = [token for one in told for token in one.tokens or ()]
    assert len(tokens) == 3
    assert "".join(tokens) == "".join(choice.text for choice in choices)
    assert all(logprob <= 0 for one in told for logprob in one.token_logprobs or ())


def refusal(failure: pytest.ExceptionInfo[openai.BadRequestError], name: str) -> None:
    """A field that an engine has not is refused by its name."""
    assert failure.value.param == name
    assert f'"{name}"' in failure.value.message


def test_a_json_schema_is_followed_or_refused_by_name(client: openai.OpenAI, subject: Subject) -> None:
    if "response_format" in subject.lacks:
        with pytest.raises(openai.BadRequestError) as failure:
            chat(client, response_format=FORMAT)
        refusal(failure, "response_format")
        return
    answer = chat(client, response_format=FORMAT, max_tokens=64, temperature=1)

    decoded = json.loads(answer.choices[0].message.content or "")
    assert set(decoded) == {"answer"}
    assert 0 <= decoded["answer"] <= 9


@pytest.mark.parametrize("wanted", [{"type": "json_object"}, FORMAT], ids=["object", "schema"])
def test_a_completion_s_format_is_followed_or_refused_by_name(
    client: openai.OpenAI, subject: Subject, wanted: Any
) -> None:
    fields = {"extra_body": {"response_format": wanted}, "max_tokens": 200, "temperature": 1, "seed": 3}
    if "response_format" in subject.lacks:
        with pytest.raises(openai.BadRequestError) as failure:
            complete(client, **fields)
        refusal(failure, "response_format")
        return
    choice = complete(client, "Tell me a story about a dog and", **fields).choices[0]

    assert choice.text.lstrip().startswith("{")
    if choice.finish_reason == "stop":  # it did not run out of tokens
        decoded = json.loads(choice.text)
        assert isinstance(decoded, dict)
        assert wanted is not FORMAT or 0 <= decoded["answer"] <= 9
    else:
        assert wanted is not FORMAT


@pytest.mark.parametrize("schema", [False, {"not": {}}, {"type": "object", "propertyNames": {"maxLength": 1}}])
def test_bad_input_49_a_schema_that_would_restrict_nothing_is_refused(client: openai.OpenAI, schema: Any) -> None:
    with pytest.raises(openai.BadRequestError) as failure:
        complete(client, extra_body={"json_schema": schema})
    refusal(failure, "json_schema")


def test_a_tool_is_called_or_refused_by_name(client: openai.OpenAI, subject: Subject) -> None:
    if "tools" in subject.lacks:
        with pytest.raises(openai.BadRequestError) as failure:
            chat(client, tools=[TOOL], tool_choice="required")
        assert failure.value.param in {"tools", "tool_choice"}
        return
    answer = chat(client, tools=[TOOL], tool_choice="required", max_tokens=64)

    calls = answer.choices[0].message.tool_calls
    assert calls
    assert calls[0].type == "function"
    assert calls[0].function.name == "count"
    json.loads(calls[0].function.arguments)


@pytest.mark.parametrize("streamed", [False, True])
def test_bad_input_48_a_prompt_over_the_context_is_told_with_both_numbers(
    client: openai.OpenAI, *, streamed: bool
) -> None:
    with pytest.raises(
        openai.BadRequestError, match=rf"{CONTEXT} tokens, and the prompt has (at least )?\d+"
    ) as failure:
        client.completions.create(model=MODEL, prompt="hello " * 3000, max_tokens=8, stream=streamed)

    assert failure.value.code == "context_length_exceeded"
