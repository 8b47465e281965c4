"""Bad settings of engines, by the rows of reliability.md: options, variables, blocks, precisions."""

import pytest

from tests.support.api import Api
from tests.support.models import model
from tests.support.refusals import assert_says, refusal

FRAMEWORKS = ("llamacpp", "transformers", "vllm")


@pytest.mark.parametrize(
    ("framework", "quantization", "allowed"),
    [("vllm", "q4_k_m", "gptq"), ("llamacpp", "awq", "q4_k_m"), ("transformers", "q8_0", "bitsandbytes-8bit")],
)
def test_bad_input_06_quantization_of_another_framework(
    api: Api, framework: str, quantization: str, allowed: str
) -> None:
    text = refusal(api, {"framework": framework, "quantization": quantization})
    assert_says(text, "spec.quantization", quantization, framework, allowed)


@pytest.mark.parametrize(("count", "size"), [(3, 2), (0, 2), (2, 4)])
def test_bad_input_07_tensor_parallel_does_not_divide_gpus(api: Api, count: int, size: int) -> None:
    text = refusal(api, {"framework": "vllm", "gpu": {"count": count}, "vllm": {"tensorParallelSize": size}})
    assert_says(text, "spec.vllm.tensorParallelSize", "must divide gpu.count")


def test_a_tensor_parallel_size_that_divides_the_gpus_is_taken(api: Api) -> None:
    api.create(model("divides", framework="vllm", gpu={"count": 4}, vllm={"tensorParallelSize": 2}))
    api.create(model("default", framework="vllm", gpu={"count": 3}, vllm={"maxNumSeqs": 2}))


@pytest.mark.parametrize(
    ("block", "fields"),
    [("vllm", {"maxNumSeqs": 8}), ("llamacpp", {"threads": 2}), ("transformers", {"compile": True})],
)
def test_a_block_is_only_for_its_own_framework(api: Api, block: str, fields: dict[str, object]) -> None:
    for framework in FRAMEWORKS:
        if framework == block:
            api.create(model("own", framework=framework, **{block: fields}))
        else:
            text = refusal(api, {"framework": framework, block: fields})
            assert_says(text, f"spec.{block}", f"framework {framework}", f"set framework to {block}")


@pytest.mark.parametrize(
    ("block", "field", "value", "words"),
    [
        ("vllm", "gpuMemoryUtilization", 0, ("0", "at least 0.05")),
        ("vllm", "gpuMemoryUtilization", 0.04, ("0.04", "at least 0.05")),
        ("vllm", "gpuMemoryUtilization", 1.1, ("1.1", "equal to 1")),
        ("vllm", "maxNumSeqs", 0, ("0", "equal to 1")),
        ("llamacpp", "gpuLayers", -1, ("-1", "equal to 0")),
        ("llamacpp", "gpuLayers", 8, ("set gpu.count",)),
        ("llamacpp", "threads", 0, ("0", "equal to 1")),
        ("transformers", "int8Threshold", -1, ("-1", "equal to 0")),
        ("transformers", "int8Threshold", 6, ("quantization bitsandbytes-8bit",)),
        ("transformers", "compile", "yes", ("boolean",)),
    ],
)
def test_a_setting_of_an_engine_out_of_range_is_refused(
    api: Api, block: str, field: str, value: object, words: tuple[str, ...]
) -> None:
    text = refusal(api, {"framework": block, block: {field: value}})
    assert_says(text, f"spec.{block}.{field}", *words)


def test_more_slots_than_llama_cpp_has_are_refused(api: Api) -> None:
    assert_says(refusal(api, {"maxConcurrency": 257}), "spec.maxConcurrency", "at most 256")


def test_a_task_that_is_none_is_refused(api: Api) -> None:
    assert_says(refusal(api, {"task": "rerank"}), "spec.task", "rerank", "generate", "embed")


def test_parameters_of_answers_are_refused_for_embeddings(api: Api) -> None:
    text = refusal(api, {"task": "embed", "parameters": {"temperature": 1}})
    assert_says(text, "spec.parameters", "with task embed remove them")


NO_OPTIONS = {
    "vllm": [
        *("--trust-remote-code", "--api-key=x", "--host=0.0.0.0", "--port=1", "--chat-template=/x", "--middleware=os"),
        *("--allowed-local-media-path=/", "--load-format=pt", "--tensor-parallel-size=8", "--max-model-len=9", "-tp=8"),
        *(
            "--dtyp=auto",
            "--dtype auto",
            "--dtype=auto --x",
            "--dtype",
            "--dtype=auto;id",
            "--dtype=`id`",
            "dtype=auto",
        ),
        *("--dtype=auto\n", " --dtype=auto", "--DTYPE=auto", "--flash-attn=on"),
    ],
    "llamacpp": [
        *("--flash-attn", "--flash-attn=maybe", "-fa=on", "--lora=/x", "--mlock", "--ctx-size=9", "--no-mmap=1"),
        *("--slot-save-path=/x", "--override-kv=a=b", "--enforce-eager"),
    ],
    "transformers": ["--anything=at-all"],
}


@pytest.mark.parametrize(
    ("framework", "argument"), [(framework, argument) for framework, all_ in NO_OPTIONS.items() for argument in all_]
)
def test_bad_input_18_an_option_that_is_not_on_the_list(api: Api, framework: str, argument: str) -> None:
    good = {"vllm": ["--enforce-eager"], "llamacpp": ["--no-mmap"], "transformers": []}[framework]
    text = refusal(api, {"framework": framework, "extraArgs": [*good, argument]})
    listed = {"vllm": "--dtype=auto|half", "llamacpp": "--flash-attn=on|off|auto", "transformers": "takes no options"}
    assert_says(text, "spec.extraArgs", argument.replace("\n", "\\n"), f"framework {framework}", listed[framework])


def test_bad_input_18_an_option_that_comes_twice(api: Api) -> None:
    assert_says(refusal(api, {"extraArgs": ["--no-mmap", "--no-mmap"]}), "spec.extraArgs[1]", "Duplicate", "--no-mmap")


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"framework": "vllm", "extraArgs": ["--dtype=$(HF_TOKEN)"]}, "spec.extraArgs"),
        ({"framework": "vllm", "extraArgs": ["--tool-call-parser=$(HOME)"]}, "spec.extraArgs"),
        ({"env": [{"name": "LOG_LEVEL", "value": "$(HOME)"}]}, "spec.env[0].value"),
        ({"env": [{"name": "LOG_LEVEL", "value": "$$(HOME)"}]}, "spec.env[0].value"),
        ({"servedName": "$(HOME)"}, "spec.servedName"),
        ({"servedName": "a$(HOME)b"}, "spec.servedName"),
        ({"source": {"uri": "oci://$(HOME)/x"}}, "spec.source.uri"),
        ({"source": {"uri": "pvc://claim/$(HOME)"}}, "spec.source.uri"),
        ({"runtimeImage": "registry.example/$(HOME):1"}, "spec.runtimeImage"),
        ({"quantization": "$(HOME)"}, "spec.quantization"),
    ],
)
def test_bad_input_19_kubernetes_is_given_nothing_to_expand(api: Api, spec: dict[str, object], field: str) -> None:
    assert_says(refusal(api, spec), field, "HOME" if "HOME" in str(spec) else "HF_TOKEN")


VARIABLES = (
    *("LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME", "PATH", "HOME"),
    *("HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE", "VLLM_SERVER_DEV_MODE", "VLLM_ALLOW_RUNTIME_LORA_UPDATING"),
    *("VLLM_PLUGINS", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "CUDA_VISIBLE_DEVICES", "CUDA_MODULE"),
    *("KUBERNETES_SERVICE_HOST", "GGML_BACKEND_PATH", "HTTPS_PROXY", "MODEL_PATH", "PORT", "HOST", "log_level"),
    *("TERMINATION_MESSAGE_PATH", "REQUEST_DEFAULTS", "EXTRA_ARGS", "LOG_LEVEL ", "LOG_LEVEL=x", "A\nB"),
)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_bad_input_20_a_variable_that_is_not_on_the_list(api: Api, framework: str) -> None:
    for name in VARIABLES:
        variables = [{"name": "LOG_LEVEL", "value": "INFO"}, {"name": name, "value": "all"}]
        text = refusal(api, {"framework": framework, "env": variables})
        assert_says(text, "spec.env", name.replace("\n", "\\n"), f"framework {framework}", "LOG_LEVEL, ")


@pytest.mark.parametrize("value", ["/etc/passwd", "a b", "a;b", "a\nb", "`id`", "", "é", "a|b", '"a"', "a\\b"])
def test_bad_input_20_a_value_that_is_more_than_a_word(api: Api, value: str) -> None:
    assert_says(refusal(api, {"env": [{"name": "LOG_LEVEL", "value": value}]}), "spec.env[0].value")


def test_bad_input_20_a_variable_that_comes_twice(api: Api) -> None:
    twice = [{"name": "LOG_LEVEL", "value": value} for value in ("INFO", "DEBUG")]
    assert_says(refusal(api, {"env": twice}), "spec.env[1]", "Duplicate", "LOG_LEVEL")
