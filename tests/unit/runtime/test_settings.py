"""The settings: names, defaults, and messages that say what is possible."""

from pathlib import Path

import pytest

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
    assert read_settings({"LLAMA_CTX": "512", "MAX_INPUT_TOKENS": "1024"}).max_input_tokens == 1024


def test_an_empty_variable_is_not_set() -> None:
    assert read_settings({"MODEL_QUANTIZATION": "", "PORT": ""}) == Settings()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("MODEL_BACKEND", "vLLM", "transformers, vllm, or dummy"),
        ("MAX_CONCURRENT_REQUESTS", "0", ">= 1"),
        ("MAX_CONCURRENT_REQUESTS", "2.5", "`int`"),
        ("MAX_INPUT_TOKENS", "many", "int"),
        ("PORT", "65536", "<= 65535"),
        ("DRAIN_TIMEOUT", "-1", ">= 0"),
        ("DRAIN_TIMEOUT", "nan", "DRAIN_TIMEOUT"),
        ("LOG_LEVEL", "TRACE", "DEBUG, INFO"),
        ("MODEL_NAME", "a\nb", "MODEL_NAME"),
        ("REQUEST_DEFAULTS", "temperature=1", "JSON"),
        ("REQUEST_DEFAULTS", "[]", "object"),
        ("REQUEST_DEFAULTS", '{"temperature": 101}', "$.temperature"),
        ("REQUEST_DEFAULTS", '{"temperature": NaN}', "JSON"),
        ("REQUEST_DEFAULTS", '{"stream": true}', "stream"),
        ("EXTRA_ARGS", "--no-mmap", "JSON"),
        ("EXTRA_ARGS", '["--x", 5]', "str"),
        ("EXTRA_ARGS", "\udcff", "EXTRA_ARGS"),
        ("LLAMA_GPU_LAYERS", "-1", ">= 0"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_possible(name: str, value: str, said: str) -> None:
    with pytest.raises(SettingsError) as failure:
        read_settings({name: value})

    assert said in str(failure.value)
    assert f"{name} is {value!r}" in str(failure.value)


def test_all_wrong_values_are_told_at_once() -> None:
    with pytest.raises(SettingsError, match=r"PORT.*DRAIN_TIMEOUT"):
        read_settings({"PORT": "x", "DRAIN_TIMEOUT": "y"})


def test_every_setting_is_described() -> None:
    assert [name for name, _, meaning in describe() if not meaning] == []
    assert describe()[0][:2] == ("MODEL_BACKEND", "llamacpp")
