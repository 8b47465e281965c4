"""What a spec may say of an engine: lists of what is allowed, and nothing on them that reaches further than it."""

import re

import pytest

from moorage_operator.api.engine_rules import engine_rules, option_pattern
from moorage_operator.api.engines import ENGINES, Framework
from moorage_operator.engines import ENGINES as OPERATOR_ENGINES
from moorage_operator.engines import environment
from tests.golden.cases import cases
from tests.unit.operator.support import Object, model

FORBIDDEN_VARIABLES = re.compile(
    r"LD_|PYTHON|PATH$|HF_|NVIDIA_|CUDA_|KUBERNETES_|MOORAGE_|VLLM_(SERVER_DEV|ALLOW|HOST|PORT|API|PLUGINS|CACHE|CONFIG)"
    r"|GGML_BACKEND|NCCL_(DEBUG_FILE|CONF|PLUGIN|NET)|.*(TOKEN|KEY|SECRET|PROXY|URL|ENDPOINT|DIR|HOME|FILE)$"
)
FORBIDDEN_OPTIONS = {
    *("trust-remote-code", "host", "port", "api-key", "chat-template", "middleware", "tool-parser-plugin", "config"),
    *("allowed-local-media-path", "download-dir", "load-format", "model", "tokenizer", "hf-overrides", "ssl-keyfile"),
    *("worker-cls", "worker-extension-cls", "speculative-config", "compilation-config", "enable-lora", "lora-modules"),
    *("tensor-parallel-size", "max-model-len", "gpu-memory-utilization", "max-num-seqs", "quantization", "mlock"),
    *("lora", "mmproj", "slot-save-path", "override-kv", "grammar-file", "log-file", "path", "props", "ctx-size"),
}


@pytest.mark.parametrize("framework", Framework)
def test_bad_input_20_no_allowed_variable_reaches_further_than_the_engine(framework: Framework) -> None:
    assert [name for name in ENGINES[framework].variables if FORBIDDEN_VARIABLES.match(name)] == []
    assert len(set(ENGINES[framework].variables)) == len(ENGINES[framework].variables)


@pytest.mark.parametrize("framework", Framework)
def test_bad_input_18_no_option_reaches_files_code_or_addresses(framework: Framework) -> None:
    options = ENGINES[framework].options
    assert FORBIDDEN_OPTIONS & set(options) == set()
    for name, value in options.items():
        assert re.fullmatch(r"[a-z][a-z0-9-]+", name)
        # A value is a word or a number: no path, no JSON, no module, no other model.
        assert re.fullmatch(value, "a/b") is re.fullmatch(value, '{"a":1}') is re.fullmatch(value, "a.b:c") is None


@pytest.mark.parametrize(
    "argument",
    [
        *("--trust-remote-code", "--dtyp=auto", "--dtype auto", "--dtype", "--dtype=", "-dtype=auto", "dtype=auto"),
        *("--dtype=auto --trust-remote-code", "--dtype=auto;id", "--dtype=$(id)", "--dtype=auto\n", "--DTYPE=auto"),
        *(" --dtype=auto", "--enforce-eager=true", "--", "--tool-call-parser=a/b", "--seed=-1", "--seed=1e9"),
    ],
)
def test_bad_input_18_only_what_is_written_in_full_is_an_option(argument: str) -> None:
    # Python's $ would let a line break through; RE2's, which the API server has, does not.
    pattern = option_pattern(ENGINES[Framework.VLLM]).removesuffix("$")
    assert re.fullmatch(pattern, argument) is None
    assert re.fullmatch(pattern, "--dtype=auto")


def test_no_variable_is_one_of_the_settings_that_the_operator_writes() -> None:
    # All settings are written for one golden case or another; a new one has to be added to one of them.
    for case in cases():
        of_ours = set(environment(case.model, "/models")) | {"DRAIN_TIMEOUT", "HOME", "PORT"}
        assert of_ours & set(ENGINES[case.model.spec.framework].variables) == set()


def test_every_field_of_a_block_becomes_a_setting() -> None:
    for framework, engine in ENGINES.items():
        for field in engine.block.model_fields.values():
            assert field.examples
            fields: Object = {framework.value: {field.alias: field.examples[0]}}
            asked = model(framework=framework, **fields)
            assert environment(asked, "/m") != environment(model(framework=framework), "/m"), field.alias


def test_every_framework_is_told_what_it_may_say() -> None:
    found = engine_rules()
    assert len(found) == 4 * len(OPERATOR_ENGINES)
    for framework, engine in ENGINES.items():
        messages = " ".join(rule["message"] for rule in found if f"framework {framework}" in rule["message"])
        assert [name for name in (*engine.variables, *engine.options) if name not in messages] == []
