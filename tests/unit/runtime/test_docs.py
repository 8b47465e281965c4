"""docs/runtime.md says what the code does: its settings, fields, routes, errors and limits of requests."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from moorage_common.facts import LoadError
from moorage_runtime.engines.llamacpp_options import OPTIONS as LLAMACPP_OPTIONS
from moorage_runtime.engines.vllm_options import OPTIONS as VLLM_OPTIONS
from moorage_runtime.fields import CHAT, COMPLETIONS
from moorage_runtime.routes import ROUTES
from moorage_runtime.settings import describe

PAGE = Path("docs/runtime.md").read_text()


def test_the_table_of_settings_is_what_the_command_lists() -> None:
    rows = re.findall(r"^\| `([A-Z0-9_]+)`( \(or [A-Z_]+\))? \| (.*?) \| (.*) \|$", PAGE, re.MULTILINE)

    assert [(name + alias, "" if default == "-" else default, meaning) for name, alias, default, meaning in rows] == (
        describe()
    )


def test_every_field_route_and_reason_is_on_the_page() -> None:
    named = set(re.findall(r"`([^`\s]+)`", PAGE))

    assert {*CHAT, *COMPLETIONS, *ROUTES, *LoadError} <= named


@pytest.mark.parametrize(("engine", "options"), [("llama.cpp", LLAMACPP_OPTIONS), ("vLLM", VLLM_OPTIONS)])
def test_every_option_of_an_engine_is_on_the_page(engine: str, options: Mapping[str, object]) -> None:
    section = PAGE.partition(f"### Options of {engine}\n")[2].partition("\n## ")[0].partition("\n### ")[0]
    rows = re.findall(r"^\| (`--.*?) \|", section, re.MULTILINE)

    assert sorted(option for row in rows for option in re.findall(r"`(--[a-z-]+)`", row)) == sorted(options)
