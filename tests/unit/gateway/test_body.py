"""Which model a body asks for, and that no two readers can see two."""

import json
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_gateway.body import MOST_FIELDS, BodyError, asked_model, with_model

TWICE = [
    b'{"model":"a","model":"a"}',
    b'{"model":"a","messages":[],"model":"b"}',
    b'{"model":"a","\\u006dodel":"b"}',
    b'{"mod\\u0065l":"a","model":"b"}',
    b'{"model":"a","model":null}',
]


@pytest.mark.parametrize("body", TWICE)
def test_bad_input_47_a_model_that_is_named_twice_is_refused(body: bytes) -> None:
    with pytest.raises(BodyError, match="twice"):
        asked_model(body)
    with pytest.raises(BodyError, match="twice"):
        with_model(body, "c")


@pytest.mark.parametrize(
    "body", [b'{"a":1,"a":2}', b'{"a":1,"\\u0061":2}', b'{"model":"m","stream":true,"stream":false}']
)
def test_bad_input_47_a_field_that_is_there_twice_is_not_written_anew(body: bytes) -> None:
    with pytest.raises(BodyError, match="twice"):
        with_model(body, "c")


@pytest.mark.parametrize(
    "body",
    [
        *(
            b"",
            b"null",
            b"[]",
            b'"model"',
            b"{}",
            b'{"model":{"model":"a"}}',
            b'{"model":["a"]}',
            b'{"model":"\\ud800"}',
        ),
        *(b'{"model":"a"}x', b'{"model":"a",}', b'\xef\xbb\xbf{"model":"a"}', b'{"model":"\xff"}', b'{"model":NaN}'),
        *(
            b'{"model":"a","x":Infinity}',
            b'{"model":"a","x":-NaN}',
            b'{"Model":"a"}',
            b'{"model ":"a"}',
            b'{"model":"a',
        ),
    ],
)
def test_bad_input_47_a_body_without_a_model_is_refused(body: bytes) -> None:
    with pytest.raises(BodyError):
        asked_model(body)


@pytest.mark.parametrize(
    "body",
    [
        b"{" + b",".join(b'"%x":0' % number for number in range(400_000)) + b',"model":"a"}',
        b"{" + b'"model":"a",' * 300_000 + b'"a":1}',
        b'{"a":' + b"[" * 2_000_000 + b"]" * 2_000_000 + b',"model":"a"}',
    ],
    ids=["fields", "models", "depth"],
)
def test_bad_input_47_four_mebibytes_of_nonsense_are_refused_at_once(body: bytes) -> None:
    begun = time.process_time()
    with pytest.raises(BodyError):
        with_model(body, "b")
    with suppress(BodyError):
        asked_model(body)
    assert time.process_time() - begun < 0.05


def test_as_many_fields_as_there_may_be() -> None:
    fields = {str(number): number for number in range(MOST_FIELDS - 1)}
    assert json.loads(with_model(json.dumps({**fields, "model": "a"}).encode(), None)) == fields
    with pytest.raises(BodyError, match="1024"):
        with_model(json.dumps({**fields, "model": "a", "b": 1}).encode(), None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(
    fields=st.dictionaries(st.text(), JSON),
    model=st.text(),
    name=st.text(alphabet=st.characters(exclude_categories=["Cs"])),
    ascii_only=st.booleans(),
)
def test_all_else_of_a_body_stays_as_it_was(fields: dict[str, object], model: str, name: str, ascii_only: bool) -> None:
    given_fields = {**fields, "model": model}
    try:
        body = json.dumps(given_fields, ensure_ascii=ascii_only).encode()
    except UnicodeEncodeError:
        return
    if any("\ud800" <= letter <= "\udfff" for letter in json.dumps(given_fields, ensure_ascii=False)):
        return
    assert asked_model(body)[0] == model
    assert json.loads(with_model(body, name)) == {**fields, "model": name}
    assert json.loads(with_model(body, None)) == {key: value for key, value in fields.items() if key != "model"}
