"""Templates of scenarios: what they may say, what is refused when they are read; none can hold up the gateway."""

import logging
import time

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from moorage_gateway.metrics import Metrics
from moorage_gateway.templates import RENDERED_CHARACTERS, SECONDS, SOURCE_CHARACTERS, RenderError, Templates
from tests.support.operator import ROOT

VALUES = yaml.safe_load((ROOT / "charts" / "moorage" / "values.yaml").read_text(encoding="utf-8"))
GOOD = "Answer: {{ inputs }}"


def templates(**sources: str) -> Templates:
    made = Templates()
    made.update(sources)
    return made


def page(made: Templates) -> str:
    metrics = Metrics()
    metrics.add(made)
    return metrics.page().body.decode()


@pytest.mark.parametrize("scenario", ["qa", "summarize", "rewrite"])
def test_the_charts_own_scenarios_are_good_and_have_the_inputs_in_them(scenario: str) -> None:
    made = templates(**VALUES["gateway"]["templates"])
    assert made.scenarios == ["qa", "rewrite", "summarize"]
    prompt = made.render(scenario, "{{ 7 * 7 }} is <i>not</i> rendered", "team-a/chat")
    assert prompt is not None
    assert prompt.endswith("{{ 7 * 7 }} is <i>not</i> rendered")
    assert prompt != made.render("qa" if scenario != "qa" else "rewrite", "{{ 7 * 7 }} is <i>not</i> rendered", "x")


@pytest.mark.parametrize(
    ("source", "rendered"),
    [
        ("{{ inputs }} {{ scenario }} {{ model }}", "Hello World x team-a/chat"),
        ("{% if inputs|length > 5 %}long{% else %}short{% endif %}: {{ inputs|truncate(5)|upper }}", "long: HELLO…"),
        ("{{ inputs|tojson }}{# a comment #}", '"Hello World"'),
        ("{% raw %}{{ x }}{% endraw %}{{ inputs|trim|lower|capitalize }}", "{{ x }}Hello world"),
        ("{{ inputs if scenario == 'x' and not model == 'y' else 'no' }}", "Hello World"),
    ],
)
def test_what_a_template_may_say(source: str, rendered: str) -> None:
    assert templates(x=source).render("x", "Hello World", "team-a/chat") == rendered


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (
            "{% for a in inputs %}{% for b in inputs %}{% endfor %}{% endfor %}{{ inputs }}",
            "line 1: For is not possible",
        ),
        ("Hi\n{{ 10 ** 10 ** 9 }}{{ inputs }}", "line 2: Pow is not possible"),
        ("{{ inputs * 100000000 }}", "Mul is not possible"),
        ("{{ inputs ~ inputs }}", "Concat is not possible"),
        ("{{ inputs.__class__.__mro__ }}", "Getattr is not possible"),
        ("{{ inputs['format'] }}", "Getitem is not possible"),
        ("{{ inputs.upper() }}", "Call is not possible"),
        ("{% set a = inputs %}{{ a }}", "Assign is not possible"),
        ("{% macro a() %}{{ inputs }}{{ a() }}{% endmacro %}{{ a() }}", "Macro is not possible"),
        ("{% include 'other' %}{{ inputs }}", "Include is not possible"),
        ("{{ [inputs, inputs]|length }}", "List is not possible"),
        ("{{ inputs|replace('a', 'aaaa') }}", "there is no filter 'replace': there are capitalize, length"),
        ("{{ inputs|center(1000000000) }}", "there is no filter 'center'"),
        ("{{ input }}", "there is no variable 'input': there are inputs, model, scenario"),
        ("{{ inputs", "line 1: unexpected end of template"),
        ("Answer the question.", "every request would be answered alike"),
        ("", "every request would be answered alike"),
        ("{{ inputs|truncate }}", "TypeError"),
        ("{{ inputs|length|upper }}", "a filter takes text, not int"),
        ("{{ inputs" + "|tojson" * 40 + " }}", f"it writes more than {RENDERED_CHARACTERS} characters"),
        ("{{ inputs }}" + "x" * SOURCE_CHARACTERS, f"at most {SOURCE_CHARACTERS} are taken"),
        ("{{ " + "(" * 5000 + "inputs" + ")" * 5000 + " }}", "recursion"),
        ("{% if inputs %}" * 150 + "{{ inputs }}" + "{% endif %}" * 150, "indentation"),
    ],
)
def test_what_a_template_may_not_say_is_told_when_it_is_read_and_takes_no_time(
    source: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    began = time.process_time()
    made = Templates(clock=lambda: 0.0)  # on a slow machine some would take too long before they are too much
    made.update({"odd": source, "qa": GOOD})
    assert time.process_time() - began < 2 * SECONDS + 0.5
    assert made.scenarios == ["qa"]
    record = caplog.records[-1].__dict__
    assert (record["scenario"], record["last_good_one_stays"]) == ("odd", False)
    assert why in record["why"]
    assert 'moorage_gateway_template_broken{scenario="odd"} 1.0' in page(made)
    assert 'moorage_gateway_template_broken{scenario="qa"} 0.0' in page(made)


def test_of_a_template_that_becomes_broken_the_last_good_one_stays(caplog: pytest.LogCaptureFixture) -> None:
    made = templates(qa=GOOD)
    with caplog.at_level(logging.WARNING):
        made.update({"qa": "{{ input }}"})
        made.update({"qa": "{{ input }}"})
    assert made.render("qa", "x", "m") == "Answer: x"
    told = [record.__dict__ for record in caplog.records]
    assert [(record["scenario"], record["last_good_one_stays"]) for record in told] == [("qa", True)]
    assert 'template_broken{scenario="qa"} 1.0' in page(made)
    # Back to what it was, which is known already; then to a new one.
    made.update({"qa": GOOD})
    assert 'template_broken{scenario="qa"} 0.0' in page(made)
    made.update({"qa": "{{ inputs }}?"})
    assert made.render("qa", "x", "m") == "x?"
    made.update({})
    assert made.render("qa", "x", "m") is None
    assert "scenario=" not in page(made)


def test_more_scenarios_than_there_may_be_are_told() -> None:
    made = templates(**{f"s{number:03}": GOOD for number in range(102)})
    assert len(made.scenarios) == 100
    assert page(made).count("} 1.0") == 2


def test_a_template_that_writes_too_much_fails_alone() -> None:
    made = templates(qa="{{ inputs }}" * 10)
    with pytest.raises(RenderError, match=f"more than {RENDERED_CHARACTERS} characters"):
        made.render("qa", "x" * 2**20, "m")
    assert made.render("qa", "x", "m") == "x" * 10


def test_a_template_that_takes_too_long_fails_alone() -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 0.1
        return now[0]

    made = Templates(clock)
    made.update({"qa": GOOD, "slow": GOOD + "{% if inputs == 'y' %}" + "{{ inputs|upper }}" * 10 + "{% endif %}"})
    assert made.scenarios == ["qa", "slow"]
    with pytest.raises(RenderError, match="takes longer"):
        made.render("slow", "y", "m")
    assert made.render("qa", "y", "m") == "Answer: y"


@settings(deadline=None, max_examples=200)
@given(source=st.text(st.sampled_from("{}%|()*'\"inputs fora0 ~.if\n#"), max_size=200), text=st.text(max_size=50))
def test_no_source_breaks_what_reads_it(source: str, text: str) -> None:
    made = templates(x=source)
    if made.scenarios:
        assert made.render("x", text, "m") is not None
