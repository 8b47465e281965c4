"""The prompts of `/v1/generate`: a template for each scenario, from a ConfigMap, changed while the gateway runs.

Templates are rendered where all requests pass, so none may take long, whatever is written in it. Most of jinja is
therefore refused when a template is read: no loops, calls, attributes, arithmetic or assignments. What is left (texts,
variables, conditions, a few filters) takes time in proportion to its length and its input, and filters are timed.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec
from jinja2 import StrictUndefined, Template, TemplateError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

log = logging.getLogger(__name__)

MOST_SCENARIOS: Final = 100
SOURCE_CHARACTERS: Final = 16 * 1024
NAME_CHARACTERS: Final = 63
RENDERED_CHARACTERS: Final = 8 * 1024 * 1024
"""What a template may write: more than a body may have by default."""
SECONDS: Final = 0.25
"""What one rendering may take, of CPU: a gateway that is held up by others must not take a template for broken."""

VARIABLES: Final = frozenset({"inputs", "scenario", "model"})


def _truncate(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}…"


FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    "capitalize": str.capitalize,
    "length": len,
    "lower": str.lower,
    "tojson": lambda text: msgspec.json.encode(text).decode(),
    "trim": str.strip,
    "truncate": _truncate,
    "upper": str.upper,
}
"""Filters that write at most a few times as much as they get, in time that its length allows."""

_ALLOWED: Final = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.Const, nodes.Name),
    *(nodes.If, nodes.CondExpr, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Filter),
)


class TemplateInvalidError(Exception):
    """A template that cannot be used; the text says why and in which line."""


class RenderError(Exception):
    """A template that failed with this input."""


class Templates(Collector):
    """The scenarios there are."""

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        """None yet; `clock` is in seconds."""
        self._clock = clock
        self._deadline = 0.0
        self._environment = self._made()
        self._templates: dict[str, tuple[str, Template]] = {}
        self._broken: dict[str, tuple[str, str]] = {}
        """Source and problem of what stands in the ConfigMap and cannot be used."""

    @property
    def scenarios(self) -> list[str]:
        """Their names, in order."""
        return sorted(self._templates)

    def update(self, sources: Mapping[str, str]) -> None:
        """Take what the ConfigMap has now. Of a template that has become broken the last good one stays."""
        for name in [*self._templates, *self._broken]:
            if name not in sources:
                self._templates.pop(name, None)
                self._broken.pop(name, None)
        for number, (name, source) in enumerate(sorted(sources.items())):
            if name in self._broken and self._broken[name][0] == source:
                continue
            known = self._templates.get(name)
            if known is not None and known[0] == source:
                self._broken.pop(name, None)
                continue
            try:
                if number >= MOST_SCENARIOS:
                    raise TemplateInvalidError(
                        f"there are {len(sources)} scenarios, at most {MOST_SCENARIOS} are taken"
                    )
                self._templates[name] = source, self._read(name, source)
            except TemplateInvalidError as error:
                self._broken[name] = source, str(error)
                kept = name in self._templates
                log.warning(
                    "a template cannot be used",
                    extra={"scenario": name, "why": str(error), "last_good_one_stays": kept},
                )
            else:
                self._broken.pop(name, None)
                log.info("a template was read", extra={"scenario": name})

    def render(self, scenario: str, inputs: str, model: str) -> str | None:
        """The prompt; None where there is no such scenario. RenderError."""
        found = self._templates.get(scenario)
        if found is None:
            return None
        return self._render(found[1], {"inputs": inputs, "scenario": scenario, "model": model})

    def collect(self) -> Iterable[Metric]:
        """What prometheus_client asks for: 1 for each scenario whose text in the ConfigMap cannot be used."""
        told = GaugeMetricFamily(
            "moorage_gateway_template_broken",
            "1 while the template of a scenario, as it is in the ConfigMap, cannot be used.",
            labels=["scenario"],
        )
        for name in sorted({*self._templates, *self._broken})[: 2 * MOST_SCENARIOS]:
            told.add_metric([name], float(name in self._broken))
        return [told]

    def _read(self, name: str, source: str) -> Template:
        if not 0 < len(name) <= NAME_CHARACTERS:
            raise TemplateInvalidError(f"the name of a scenario has at most {NAME_CHARACTERS} characters")
        if len(source) > SOURCE_CHARACTERS:
            raise TemplateInvalidError(f"it has {len(source)} characters, at most {SOURCE_CHARACTERS} are taken")
        self._deadline = self._clock() + SECONDS
        try:
            parsed = self._environment.parse(source)
            _check(parsed)
            # jinja computes what is constant when it compiles, so the check has to come first.
            template = Template.from_code(
                self._environment, self._environment.compile(parsed, name), self._environment.make_globals(None)
            )
            self._render(template, {"inputs": "What is the opposite of hot?", "scenario": name, "model": "a/b"})
        except TemplateError as error:
            line = getattr(error, "lineno", None)
            raise TemplateInvalidError(f"line {line}: {error}" if line else str(error)) from error
        except (RenderError, RecursionError, SyntaxError) as error:
            raise TemplateInvalidError(str(error) or type(error).__name__) from error
        return template

    def _render(self, template: Template, variables: Mapping[str, str]) -> str:
        self._deadline = self._clock() + SECONDS
        pieces, size = [], 0
        try:
            for piece in template.generate(variables):
                size += len(piece)
                self._check_limits(size)
                pieces.append(piece)
        except (TemplateError, TypeError, ValueError, RecursionError) as error:
            raise RenderError(f"{type(error).__name__}: {error}") from error
        return "".join(pieces)

    def _check_limits(self, size: int) -> None:
        if size > RENDERED_CHARACTERS:
            raise RenderError(f"it writes more than {RENDERED_CHARACTERS} characters")
        if self._clock() > self._deadline:
            raise RenderError(f"it takes longer than {SECONDS} s")

    def _made(self) -> ImmutableSandboxedEnvironment:
        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, cache_size=0)
        environment.globals.clear()
        environment.tests.clear()
        environment.filters.clear()
        environment.filters.update({name: self._limited(function) for name, function in FILTERS.items()})
        return environment

    def _limited(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def limited(text: Any, *args: Any) -> Any:
            if not isinstance(text, str):
                raise TypeError(f"a filter takes text, not {type(text).__name__}")
            made = function(text, *args)
            self._check_limits(len(made) if isinstance(made, str) else 0)
            return made

        return limited


def _check(template: nodes.Template) -> None:
    """Refuse what could take long or read anything but the variables."""
    names = set()
    for node in _all(template):
        line = getattr(node, "lineno", None)
        if not isinstance(node, _ALLOWED):
            kind = type(node).__name__
            raise TemplateInvalidError(
                f"line {line}: {kind} is not possible here: there are texts, {{{{ variables }}}}, "
                f"{{% if %}}, and the filters {', '.join(sorted(FILTERS))}"
            )
        if isinstance(node, nodes.Filter) and node.name not in FILTERS:
            raise TemplateInvalidError(
                f"line {line}: there is no filter {node.name!r}: there are {', '.join(sorted(FILTERS))}"
            )
        if isinstance(node, nodes.Name):
            names.add(node.name)
            if node.name not in VARIABLES:
                raise TemplateInvalidError(
                    f"line {line}: there is no variable {node.name!r}: there are {', '.join(sorted(VARIABLES))}"
                )
    if "inputs" not in names:
        raise TemplateInvalidError("it does not have {{ inputs }}, so every request would be answered alike")


def _all(node: nodes.Node) -> Iterable[nodes.Node]:
    yield node
    for child in node.iter_child_nodes():
        yield from _all(child)
