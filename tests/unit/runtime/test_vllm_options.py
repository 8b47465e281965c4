"""The options of vLLM that EXTRA_ARGS may hold."""

import re

import pytest

from moorage_operator.api.engine_rules import option_pattern
from moorage_operator.api.engines import ENGINES, Framework
from moorage_runtime.engines.vllm_options import OPTIONS, command_line, has_tools, read_options
from moorage_runtime.errors import LoadFailure


def test_options_are_read_and_written_as_vllm_takes_them() -> None:
    options = read_options(("--dtype=bfloat16", "--enforce-eager", "--seed=7"))

    assert command_line(options) == ["--dtype=bfloat16", "--enforce-eager", "--seed=7"]
    assert not has_tools(options)
    assert read_options(None) == {}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--trust-remote-code",), "is not one of"),
        (("--model=/other",), "is not one of"),
        (("--middleware=os.system",), "is not one of"),
        (("--dtyp=half",), "is not one of"),
        (("--dtype", "half"), "one of auto, half"),
        (("--dtype=int8",), "one of auto, half"),
        (("--seed=0x7",), "a number from 1"),
        (("--tool-call-parser=../x",), "a name"),
        (("--enforce-eager=1",), "it has no value"),
        (("--enforce-eager=",), "it has no value"),
        (("--seed=1", "--seed=2"), "it is there twice"),
        (("--enable-auto-tool-choice",), "--tool-call-parser has to be there too"),
        (("--tool-call-parser=hermes",), "--enable-auto-tool-choice has to be there too"),
    ],
)
def test_bad_input_18_other_options_are_refused(arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(LoadFailure) as raised:
        read_options(arguments)

    assert words in str(raised.value)


def test_the_operator_lets_the_same_options_through() -> None:
    theirs = ENGINES[Framework.VLLM]

    assert {f"--{name}": value for name, value in theirs.options.items()} == OPTIONS
    assert re.match(option_pattern(theirs), "--attention-backend=FLASH_ATTN")
