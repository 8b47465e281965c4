"""The settings: names, defaults, and messages that say what is possible."""

from pathlib import Path
from typing import Any

import pytest

from moorage_common.tasks import Task
from moorage_runtime.settings import Backend, RequestDefaults, Settings, SettingsError, describe, read_settings


def test_nothing_set_gives_the_defaults() -> None:
    assert read_settings({}) == Settings()


def test_every_setting_has_its_name_from_the_environment() -> None:
    found = read_settings(
        {
            "MODEL_BACKEND": "dummy",
            "MODEL_PATH": "/models",
            "MODEL_NAME": "qwen2",
            "MAX_INPUT_TOKENS": "512",
            "LLAMA_THREADS": "3",
            "MAX_CONCURRENT_REQUESTS": "7",
            "MODEL_TASK": "embed",
            "MAX_BATCH_SIZE": "32",
            "MAX_WAIT_MS": "0",
            "ENABLE_BATCHING": "false",
            "IMAGE_URL_HOSTS": "Images.example.com, [2001:db8::1]",
            "MODEL_QUANTIZATION": "q4_k_m",
            "REQUEST_DEFAULTS": '{"temperature": 0.5, "max_tokens": 7}',
            "EXTRA_ARGS": '["--no-mmap"]',
            "LLAMA_GPU_LAYERS": "0",
            "LOG_LEVEL": "DEBUG",
            "HOST": "::",
            "PORT": "8080",
            "TERMINATION_MESSAGE_PATH": "/tmp/t",  # noqa: S108
            "DRAIN_TIMEOUT": "1.5",
            "UNKNOWN": "ignored",
        }
    )

    assert found == Settings(
        model_backend=Backend.DUMMY,
        model_path=Path("/models"),
        model_name="qwen2",
        max_input_tokens=512,
        llama_threads=3,
        max_concurrent_requests=7,
        model_task=Task.EMBED,
        max_batch_size=32,
        max_wait_ms=0,
        enable_batching=False,
        image_url_hosts="Images.example.com, [2001:db8::1]",
        model_quantization="q4_k_m",
        request_defaults=RequestDefaults(temperature=0.5, max_tokens=7),
        extra_args=("--no-mmap",),
        llama_gpu_layers=0,
        log_level="DEBUG",
        host="::",
        port=8080,
        termination_message_path=Path("/tmp/t"),  # noqa: S108
        drain_timeout=1.5,
    )


def test_llama_ctx_is_another_name_for_max_input_tokens() -> None:
    assert read_settings({"LLAMA_CTX": "512"}).max_input_tokens == 512
    assert read_settings({"LLAMA_CTX": "512", "MAX_INPUT_TOKENS": "512"}).max_input_tokens == 512


def test_two_names_of_one_setting_with_two_values_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"MAX_INPUT_TOKENS is '1024' and LLAMA_CTX.* is '512'"):
        read_settings({"LLAMA_CTX": "512", "MAX_INPUT_TOKENS": "1024"})


def test_an_empty_variable_is_not_set() -> None:
    assert read_settings({"MODEL_QUANTIZATION": "", "PORT": ""}) == Settings()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("MODEL_BACKEND", "vLLM", "it has to be one of llamacpp, transformers, vllm, dummy"),
        ("MAX_CONCURRENT_REQUESTS", "0", "it has to be a whole number from 1 to 1024"),
        ("MAX_CONCURRENT_REQUESTS", "2.5", "it has to be a whole number from 1 to 1024"),
        ("MAX_INPUT_TOKENS", "many", "a whole number from 1 to 16777216"),
        ("PORT", "65536", "a whole number from 0 to 65535"),
        ("DRAIN_TIMEOUT", "-1", "a number from 0 to 3600"),
        ("DRAIN_TIMEOUT", "nan", "a number from 0 to 3600"),
        ("REQUEST_TIMEOUT", "0", "a number above 0 and at most 86400"),
        ("COMPILE_MODEL", "maybe", "true or false"),
        ("MODEL_PRESET", "huge", "one of small, medium, large, auto"),
        ("LOG_LEVEL", "TRACE", "one of DEBUG, INFO, WARNING, ERROR"),
        ("MODEL_NAME", "a\nb", "a text of at most 253 characters, without control characters"),
        ("IMAGE_URL_HOSTS", "a/b", "of names and addresses and commas only"),
        ("REQUEST_DEFAULTS", "temperature=1", "JSON"),
        ("REQUEST_DEFAULTS", "[]", "object"),
        ("REQUEST_DEFAULTS", '{"temperature": 101}', "temperature has to be a number from 0 to 100"),
        ("REQUEST_DEFAULTS", '{"temperature": NaN}', "JSON"),
        ("REQUEST_DEFAULTS", '{"stream": true}', "a JSON object of temperature, top_p"),
        ("EXTRA_ARGS", "--no-mmap", "JSON"),
        ("EXTRA_ARGS", '["--x", 5]', "a JSON list of texts, each a text of at most 128 characters"),
        ("EXTRA_ARGS", "\udcff", "EXTRA_ARGS"),
        ("LLAMA_GPU_LAYERS", "-1", "a whole number from 0 to 1024"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_possible(name: str, value: str, said: str) -> None:
    with pytest.raises(SettingsError) as failure:
        read_settings({name: value})

    assert said in str(failure.value)
    assert f"{name} is {value!r}" in str(failure.value)
    assert not [word for word in ("Expected", "Invalid", "regex", "`") if word in str(failure.value)]  # msgspec's


def test_all_wrong_values_are_told_at_once() -> None:
    with pytest.raises(SettingsError, match=r"PORT.*DRAIN_TIMEOUT"):
        read_settings({"PORT": "x", "DRAIN_TIMEOUT": "y"})


def test_every_setting_is_described() -> None:
    assert [name for name, _, meaning in describe() if not meaning] == []
    assert describe()[0][:2] == ("MODEL_BACKEND", "llamacpp")


@pytest.mark.parametrize(
    ("preset", "gibibytes", "values"),
    [
        ("small", 64, ("4bit", 2, 512, 300)),
        ("medium", 64, ("8bit", 5, 1024, 1800)),
        ("large", 1, (None, 10, 2048, 3600)),
        ("auto", 7.9, ("4bit", 2, 512, 300)),
        ("auto", 8, ("8bit", 5, 1024, 1800)),
        ("auto", 16, ("8bit", 5, 1024, 1800)),
        ("auto", 16.1, (None, 10, 2048, 3600)),
    ],
)
def test_a_preset_is_what_nobody_has_set(
    preset: str, gibibytes: float, values: tuple[str | None, int, int, float]
) -> None:
    asked = {"MODEL_PRESET": preset, "MODEL_BACKEND": "transformers"}
    found = read_settings(asked, memory=lambda: int(gibibytes * 1024**3))

    assert (
        found.model_quantization,
        found.max_concurrent_requests,
        found.max_input_tokens,
        found.unload_after,
    ) == values


def test_every_single_setting_overrides_its_preset() -> None:
    single = {
        "MODEL_QUANTIZATION": "q8_0",
        "MAX_CONCURRENT_REQUESTS": "7",
        "LLAMA_CTX": "100",
        "MODEL_IDLE_TIMEOUT": "9",
        "MODEL_UNLOAD_ENABLED": "false",
    }
    found = read_settings({"MODEL_PRESET": "small", "MODEL_BACKEND": "transformers", **single})

    assert (found.model_quantization, found.max_concurrent_requests, found.max_input_tokens) == ("q8_0", 7, 100)
    assert (found.model_idle_timeout, found.unload_after) == (9, float("inf"))


def test_a_preset_does_not_ask_a_gguf_file_for_a_quantization() -> None:
    assert read_settings({"MODEL_PRESET": "small"}).model_quantization is None


def test_nothing_is_unloaded_unless_asked_for() -> None:
    assert read_settings({"MODEL_IDLE_TIMEOUT": "5"}).unload_after == float("inf")
    assert read_settings({"MODEL_IDLE_TIMEOUT": "5", "MODEL_UNLOAD_ENABLED": "true"}).unload_after == 5


def test_the_queue_is_four_times_as_long_unless_said_otherwise() -> None:
    assert read_settings({"MAX_CONCURRENT_REQUESTS": "3"}).queue_limit == 12
    assert read_settings({"MAX_CONCURRENT_REQUESTS": "3", "MAX_QUEUED_REQUESTS": "0"}).queue_limit == 0


def test_transformers_works_on_more_requests_at_once_where_it_embeds() -> None:
    def concurrency(**settings: Any) -> int:
        return Settings(**settings).concurrency

    assert (concurrency(), concurrency(model_task=Task.EMBED)) == (4, 4)
    assert concurrency(model_task=Task.EMBED, model_backend=Backend.TRANSFORMERS) == 256
    assert concurrency(model_task=Task.EMBED, model_backend=Backend.TRANSFORMERS, max_concurrent_requests=3) == 3


def test_hosts_of_images_are_read_without_case_and_brackets() -> None:
    assert Settings().image_hosts == ()
    assert Settings(image_url_hosts="A.example, [::1],").image_hosts == ("a.example", "::1")
