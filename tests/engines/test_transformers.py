"""What transformers does in its own way; tests/integration/contract has what all engines do alike."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from hack.engines.environments import python_of, variables
from hack.engines.quantized import quantized_folder
from moorage_runtime import machine
from tests.engines.conftest import Starter, engine_process, reason_of
from tests.integration.runtime.conftest import Runtime

pytestmark = pytest.mark.timeout(600)

CAPITAL = "The capital of France is"
STORY = "Once upon a time there was"
WEIGHTS = 269_030_016
"""Bytes of SmolLM2-135M's parameters in 16 bits."""


def complete(client: openai.OpenAI, prompt: str = CAPITAL, **fields: Any) -> openai.types.Completion:
    """Ask for a completion, greedy unless told otherwise."""
    asked = {"max_tokens": 12, "temperature": 0, **fields}
    answer = client.completions.create(model="smollm2", prompt=prompt, **asked)
    assert isinstance(answer, openai.types.Completion)
    return answer


def text(client: openai.OpenAI, prompt: str = CAPITAL, **fields: Any) -> str:
    """Give the text of the first answer."""
    return complete(client, prompt, **fields).choices[0].text


def at_once(*calls: Callable[[], str]) -> list[str]:
    """Make calls at the same time."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def running(runtime: Runtime) -> int:
    """Ask the engine itself, past the front, how many requests it works on."""
    ports = [
        connection.laddr.port
        for connection in engine_process(runtime).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(ports) == 1
    count: int = httpx.get(f"http://127.0.0.1:{ports[0]}/probe", timeout=30).json()["running"]
    return count


def cpu_seconds(runtime: Runtime, work: Callable[[], object]) -> float:
    """Give the CPU time that the engine takes for some work: it does not change with what else the machine does."""
    process = engine_process(runtime)
    before = process.cpu_times()
    work()
    after = process.cpu_times()
    return after.user + after.system - before.user - before.system


def test_paris(client: openai.OpenAI) -> None:
    assert "Paris" in text(client)


def test_requests_in_one_batch_are_sampled_each_in_its_own_way(client: openai.OpenAI) -> None:
    """Greedy, with a seed, with a forbidden token: together each says what it says alone."""

    def greedy() -> str:
        return text(client, max_tokens=10)

    def hot() -> str:
        return text(client, STORY, max_tokens=10, temperature=2.0, seed=11)

    def narrow() -> str:
        return text(client, STORY, max_tokens=10, temperature=5.0, extra_body={"top_k": 1})

    def without_paris() -> str:
        return text(client, max_tokens=10, logit_bias={"7042": -100})

    calls = (greedy, hot, narrow, without_paris)
    alone = [call() for call in calls]

    assert at_once(*calls) == alone
    assert len(set(alone)) == 4
    assert "Paris" in alone[0]
    assert "Paris" not in alone[3]
    assert alone[2] == text(client, STORY, max_tokens=10), "the only one of one token is the likeliest"


def test_a_seed_gives_the_same_again_and_each_answer_its_own(client: openai.OpenAI) -> None:
    def texts(seed: int) -> list[str]:
        answer = complete(client, STORY, temperature=1.0, seed=seed, n=3)
        return [choice.text for choice in answer.choices]

    first = texts(5)
    assert len(set(first)) == 3
    assert texts(5) == first
    assert texts(6) != first


def test_without_a_seed_answers_differ(client: openai.OpenAI) -> None:
    assert len({text(client, STORY, temperature=1.5) for _ in range(4)}) > 1


def test_top_p_keeps_to_the_likeliest(client: openai.OpenAI) -> None:
    assert text(client, temperature=1.5, top_p=0.0) == text(client)


def test_penalties_are_of_effect(client: openai.OpenAI) -> None:
    def parises(**fields: Any) -> int:
        return text(client, max_tokens=8, logit_bias={"7042": 6}, **fields).count("Paris")

    assert parises(frequency_penalty=2) < parises()
    assert parises(presence_penalty=2) < parises()
    assert " is" in text(client)
    assert " is" not in text(client, extra_body={"repeat_penalty": 100}), "it is in the prompt"


def test_logprobs_are_those_of_the_model(client: openai.OpenAI) -> None:
    """What a bias or a temperature changes is the choice, not what the model holds likely."""
    plain = complete(client, max_tokens=1, logprobs=3).choices[0].logprobs
    biased = complete(client, max_tokens=1, logprobs=3, temperature=3, logit_bias={"7042": 100}).choices[0].logprobs

    assert plain is not None and biased is not None
    assert plain.top_logprobs is not None and biased.top_logprobs is not None
    assert plain.top_logprobs[0] == pytest.approx(biased.top_logprobs[0])
    assert biased.tokens == [" Paris"]


def test_requests_at_once_take_less_work_than_in_turn(runtime: Runtime, client: openai.OpenAI) -> None:
    def one() -> str:
        return text(client, STORY, max_tokens=24, extra_body={"ignore_eos": True})

    one()
    in_turn = cpu_seconds(runtime, lambda: [one() for _ in range(4)])
    together = cpu_seconds(runtime, lambda: at_once(one, one, one, one))

    assert together < 0.8 * in_turn


def test_a_long_prompt_does_not_stop_the_others(client: openai.OpenAI) -> None:
    with client.completions.create(
        model="smollm2", prompt=STORY, max_tokens=40, stream=True, extra_body={"ignore_eos": True}
    ) as stream:
        next(iter(stream))
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(text, client, "word " * 450, max_tokens=2)
            assert len(list(stream)) > 10
            assert other.result() is not None


@pytest.mark.parametrize("streamed", [True, False])
def test_bad_input_53_a_client_that_leaves_frees_its_place_within_a_second(runtime: Runtime, *, streamed: bool) -> None:
    body = {"model": "smollm2", "prompt": STORY, "max_tokens": 480, "ignore_eos": True, "stream": streamed, "n": 2}
    if streamed:
        with httpx.stream("POST", f"{runtime.url}/v1/completions", json=body, timeout=60) as answer:
            lines = answer.iter_lines()  # without a name for it, it would end and close the connection at once
            assert next(lines)
            assert running(runtime) == 2
    else:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{runtime.url}/v1/completions", json=body, timeout=2)
    left = time.monotonic()
    while running(runtime):
        assert time.monotonic() - left < 1.0


def test_bad_input_48_a_prompt_over_the_context_leaves_the_engine_as_it_was(
    runtime: Runtime, client: openai.OpenAI
) -> None:
    for length in (512, 700, 100_000):
        with pytest.raises(openai.BadRequestError, match=rf"512 tokens, and the prompt has {length}") as failure:
            client.completions.create(model="smollm2", prompt=[504] * length, max_tokens=2)
        assert failure.value.code == "context_length_exceeded"
    assert complete(client, max_tokens=1000, prompt=CAPITAL).usage is not None
    assert runtime.health()["engineRestarts"] == 0


def test_the_longest_answer_fills_the_context(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="smollm2", prompt=[504] * 500, temperature=0, extra_body={"ignore_eos": True}
    )
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (500, 12)
    assert answer.choices[0].finish_reason == "length"


def test_the_facts_are_those_of_the_memory(runtime: Runtime) -> None:
    facts = runtime.health()["facts"]

    assert facts["device"] == "cpu"
    wide = machine.lacks("avx512_bf16", "amx_bf16")
    assert (facts["quantization"], facts["dtype"]) == ("none", "float32" if wide else "bfloat16")
    # Beside the parameters, a few frequencies of the positions.
    weights = WEIGHTS * (1 + wide)
    assert weights <= facts["weightsBytes"] < weights + 10_000
    assert facts["memoryBytes"] > weights


@pytest.mark.parametrize(
    ("asked", "word", "most"), [("8bit", "bitsandbytes-8bit", 0.65), ("bitsandbytes-4bit", "bitsandbytes-4bit", 0.5)]
)
def test_quantized_weights_are_smaller_and_still_know_paris(
    started: Starter, asked: str, word: str, most: float
) -> None:
    with started(MODEL_QUANTIZATION=asked) as runtime:
        facts = runtime.health()["facts"]
        with openai.OpenAI(base_url=f"{runtime.url}/v1", api_key="none", max_retries=0) as client:
            assert "Paris" in text(client)

    assert facts["quantization"] == word
    assert 0.3 * WEIGHTS < facts["weightsBytes"] <= most * WEIGHTS


# What a model of this size still knows in 4 bits depends on how it was rounded.
@pytest.mark.parametrize(
    ("scheme", "prompt", "answer"), [("gptq", CAPITAL, "Paris"), ("awq", "The opposite of hot is", "cold")]
)
def test_checkpoints_of_4_bits_stay_so(started: Starter, scheme: str, prompt: str, answer: str) -> None:
    checkpoint = str(quantized_folder(f"smollm2-{scheme}"))
    with started("gptqmodel", MODEL_PATH=checkpoint, MODEL_QUANTIZATION=scheme) as runtime:
        facts = runtime.health()["facts"]
        with openai.OpenAI(base_url=f"{runtime.url}/v1", api_key="none", max_retries=0) as client:
            assert answer in text(client, prompt)

    assert facts["quantization"] == scheme
    assert facts["weightsBytes"] <= 0.7 * WEIGHTS


def test_a_package_that_gptq_needs_is_named_where_it_is_missing(tmp_path: Path) -> None:
    said = reason_of(
        tmp_path,
        python=str(python_of("transformers")),
        MODEL_BACKEND="transformers",
        MODEL_PATH=str(quantized_folder("smollm2-gptq")),
        **variables(),
    )
    assert "a package is missing for this model" in said
    assert "optimum" in said


@pytest.mark.parametrize(("asked", "stay"), [("true", True), ("false", False)])
def test_weights_are_mapped_or_copied_as_asked(asked: str, stay: bool, started: Starter) -> None:
    # Files in 32 bits are computed with as they are on any CPU; weights in 16 bits may be widened, which copies them.
    folder = quantized_folder("smollm2-float32")
    with started(MODEL_PATH=str(folder), LOW_CPU_MEM_USAGE=asked) as runtime:
        mapped = {entry.path for entry in engine_process(runtime).memory_maps()}
    assert (str(folder / "model.safetensors") in mapped) is stay


def test_an_engine_that_dies_comes_back(started: Starter) -> None:
    with started() as runtime:
        engine_process(runtime).kill()
        # The front sees it at once; then the model is loaded anew.
        deadline = time.monotonic() + 2.0
        while httpx.get(f"{runtime.url}/health/ready").status_code == 200:
            assert time.monotonic() < deadline
        runtime.wait_ready(300)
        assert runtime.health()["engineRestarts"] == 1


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            "rendering the chat template or tokenizing took longer than 10 s",
        ),
        ("{{ 10 ** (10 ** 9) }}", "the tokenizer does not come back"),
    ],
)
def test_a_template_that_does_not_come_back_ends_the_engine_which_comes_back(
    started: Starter, tmp_path: Path, model: Path, template: str, said: str
) -> None:
    folder = tmp_path / "endless"
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    (folder / "chat_template.jinja").write_text(template)

    with started(MODEL_PATH=str(folder)) as runtime:
        chat = {"model": "smollm2", "messages": [{"role": "user", "content": "hi"}]}
        answer = httpx.post(f"{runtime.url}/v1/chat/completions", json=chat, timeout=60)
        assert answer.status_code in (500, 502)
        deadline = time.monotonic() + 5.0
        while httpx.get(f"{runtime.url}/health/ready").status_code == 200:
            assert time.monotonic() < deadline
        runtime.wait_ready(300)
        with openai.OpenAI(base_url=f"{runtime.url}/v1", api_key="none", max_retries=0) as client:
            assert "Paris" in text(client)
        assert runtime.health()["engineRestarts"] == 1
        assert any("the engine ended" in line["message"] and said in line["message"] for line in runtime.lines())


def test_a_template_that_writes_without_end_is_refused(started: Starter, tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "long"
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    (folder / "chat_template.jinja").write_text("{{ messages[0].content * (10 ** 8) }}")

    with started(MODEL_PATH=str(folder)) as runtime:
        chat = {"model": "smollm2", "messages": [{"role": "user", "content": "hi"}]}
        answer = httpx.post(f"{runtime.url}/v1/chat/completions", json=chat, timeout=60)
        assert answer.status_code == 400
        assert "it writes 200000000 characters" in answer.json()["error"]["message"]
        assert runtime.health()["engineRestarts"] == 0


def test_bad_input_17_weights_that_are_missing_are_named_and_not_made_up(tmp_path: Path, model: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in model.iterdir():
        if file.suffix == ".safetensors":
            name, other = b"model.layers.3.mlp.up_proj.weight", b"model.layers.3.mlp.up_else.weight"
            (broken / file.name).write_bytes(file.read_bytes().replace(name, other, 1))
        else:
            (broken / file.name).symlink_to(file)

    python = str(python_of("transformers"))
    said = reason_of(tmp_path, python=python, MODEL_BACKEND="transformers", MODEL_PATH=str(broken), **variables())
    assert "ModelFileInvalid" in said
    assert "weights are missing: model.layers.3.mlp.up_proj.weight (1 in all)" in said
