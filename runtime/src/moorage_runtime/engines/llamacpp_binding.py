"""The model as llama-cpp-python has it: tokens, templates, an answer piece by piece. Only the child imports it."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from moorage_common.facts import CPU

if TYPE_CHECKING:
    from moorage_runtime.engines.llamacpp import ChildConfig

TEMPLATE: Final = "tokenizer.chat_template"
SEEDS: Final = 2**32


class Overflow(Exception):  # noqa: N818 - it names a state
    """A prompt is longer than the context."""

    def __init__(self, tokens: int, context: int) -> None:
        """Carry both numbers."""
        super().__init__(tokens, context)
        self.tokens, self.context = tokens, context


class Piece(NamedTuple):
    """A step of an answer: the text that is certain by now, the tokens that were made, and in the last one its end."""

    text: str
    tokens: int
    finish: str | None = None


class Stopper:
    """Holds back text that may be the beginning of a stop."""

    def __init__(self, stops: Sequence[str]) -> None:
        """Look for any of `stops`."""
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.stopped = False

    def take(self, text: str) -> str:
        """Take text; give what is certain to be part of the answer."""
        text = self._held + text
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max((self._overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def rest(self) -> str:
        """Give what was held back, at the end of an answer."""
        return self._held

    @staticmethod
    def _overlap(text: str, stop: str) -> int:
        return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


class Model:
    """A loaded model; used by one thread at a time."""

    def __init__(self, config: ChildConfig) -> None:
        """Load it."""
        import llama_cpp

        self._library = llama_cpp
        self.version: str = llama_cpp.__version__
        self._context = config.context
        self._llama = llama_cpp.Llama(
            config.path,
            n_ctx=config.context,
            n_threads=config.threads,
            n_threads_batch=config.threads,
            n_gpu_layers=-1 if config.gpu_layers is None else config.gpu_layers,
            verbose=False,
        )
        self._vocabulary = llama_cpp.llama_model_get_vocab(self._llama.model)
        self._template = self._formatter()

    @property
    def device(self) -> str | None:
        """The CPU, of a build that knows nothing else; the binding does not tell where another one computes."""
        return None if self._library.llama_supports_gpu_offload() else CPU

    def _formatter(self) -> Any:
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter  # it renders in jinja2's sandbox

        text = self._llama.metadata.get(TEMPLATE)
        if text is None:
            return None
        eos, bos = (self._word(token) for token in (self._llama.token_eos(), self._llama.token_bos()))
        return Jinja2ChatFormatter(template=text, eos_token=eos, bos_token=bos)

    def _word(self, token: int) -> str:
        return str(self._llama._model.token_get_text(token)) if token >= 0 else ""

    def chat(self, messages: list[dict[str, Any]]) -> list[int]:
        """Give the tokens of a conversation."""
        if self._template is None:
            raise ValueError("The model has no chat template; use /v1/completions.")
        flat = [{**message, "content": _text(message.get("content"))} for message in messages]
        try:
            prompt = self._template(messages=flat).prompt
        except Exception as error:
            raise ValueError(f"The model's chat template refuses this conversation: {error}") from error
        tokens: list[int] = self._llama.tokenize(prompt.encode(), add_bos=False, special=True)
        return tokens

    def inputs(self, value: Any) -> list[list[int]]:
        """Give the tokens of each prompt."""
        if isinstance(value, str) or (value and isinstance(value[0], int)):
            value = [value]
        found = [self._llama.tokenize(one.encode(), special=True) if isinstance(one, str) else one for one in value]
        size = self._llama.n_vocab()
        if any(token >= size for tokens in found for token in tokens):
            raise ValueError(f"A token number is not one of the {size} of this model.")
        return found

    def check(self, prompts: list[list[int]]) -> None:
        """Raise Overflow where a prompt leaves no room for an answer."""
        for tokens in prompts:
            if len(tokens) >= self._context:
                raise Overflow(len(tokens), self._context)

    def generate(self, prompt: list[int], body: dict[str, Any], index: int) -> Iterator[Piece]:
        """Give the answer number `index` to a prompt, a token at a time."""
        limit = min(body.get("max_tokens") or body.get("max_completion_tokens") or SEEDS, self._context - len(prompt))
        stops = body.get("stop") or []
        stopper = Stopper([stops] if isinstance(stops, str) else stops)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        seed = body.get("seed")
        self._llama.set_seed(SEEDS - 1 if seed is None else (seed + index) % (SEEDS - 1))
        if not prompt:
            prompt = [max(self._llama.token_bos(), 0)]
        tokens = self._llama.generate(prompt, **_sampling(body))
        made: list[int] = []
        for token in tokens:
            if self._library.llama_vocab_is_eog(self._vocabulary, token) and not body.get("ignore_eos"):
                yield Piece(stopper.take(decoder.decode(b"", final=True)) + stopper.rest(), 1, "stop")
                return
            made.append(token)
            text = stopper.take(decoder.decode(self._llama.detokenize([token], prev_tokens=prompt)))
            if stopper.stopped:
                yield Piece(text, 1, "stop")
                return
            if len(made) >= limit:
                text += stopper.take(decoder.decode(b"", final=True))
                yield Piece(text + stopper.rest(), 1, "stop" if stopper.stopped else "length")
                return
            yield Piece(text, 1)


def _sampling(body: dict[str, Any]) -> dict[str, Any]:
    """Name the fields of a request as the binding does; what is left out is as in llama.cpp's server."""
    asked = {"temp": body.get("temperature"), "top_k": body.get("top_k")}
    same = ("top_p", "min_p", "typical_p", "repeat_penalty", "frequency_penalty", "presence_penalty")
    asked |= {name: body.get(name) for name in same}
    return {name: value for name, value in asked.items() if value is not None}


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content or ())
