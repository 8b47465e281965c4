"""What is read of a request's body, and written into it: the name of the model. All else is the pod's to judge.

A name that is there twice is refused, however it is spelled: of two readers one takes the first and one the last, and
who may use the one may not use the other.
"""

from typing import Any, Final, TypeVar

import msgspec

from moorage_gateway.usage import Wish

MOST_FIELDS: Final = 1024
"""Fields of a body that is taken apart: each takes time, and no route has a twentieth of them."""

_Read = TypeVar("_Read")


class BodyError(Exception):
    """A body that is not a JSON object with one model; the text says why."""


class _Model:
    """The name of a model, for which the decoder calls our hook each time that it is there."""

    __slots__ = ()


class _Field:
    """The name of a field, for which the decoder calls our hook."""

    __slots__ = ()


class _Body(Wish, kw_only=True):
    model: _Model


_met: Final[list[Any]] = []
"""What the hook was called with in the body that is being decoded; nothing else runs meanwhile."""


def _model(_: type, found: Any) -> _Model:
    _met.append(found)
    if len(_met) > 1:
        raise BodyError("`model` is there twice")
    return _Model()


def _field(_: type, found: Any) -> _Field:
    if len(_met) == MOST_FIELDS:
        raise BodyError(f"it has more than {MOST_FIELDS} fields")
    _met.append(found)
    return _Field()


_BODY: Final = msgspec.json.Decoder(_Body, dec_hook=_model)
_FIELDS: Final = msgspec.json.Decoder(dict[_Field, msgspec.Raw], dec_hook=_field)


def asked_model(body: bytes) -> tuple[str, Wish]:
    """Give the name of the model that a body asks for, and what it says of its answer; BodyError."""
    wish = _read(_BODY, body)
    (model,) = _met
    if not isinstance(model, str):
        raise BodyError("`model` is not a text")
    return model, wish


def fields_of(body: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    """Take a body apart into its fields, none of which is there twice; BodyError."""
    values = _read(_FIELDS, body).values()
    fields: dict[str, msgspec.Raw] = dict(zip(_met, values, strict=True))
    if len(fields) != len(_met):
        raise BodyError("a field is there twice")
    return fields


def with_model(body: bytes, name: str | None) -> bytes:
    """Put a name into a body under which the pod knows its model, or take it out; nothing else changes. BodyError."""
    fields = fields_of(body)
    fields.pop("model", None)
    if name is not None:
        fields["model"] = msgspec.Raw(msgspec.json.encode(name))
    return msgspec.json.encode(fields)


def _read(decoder: "msgspec.json.Decoder[_Read]", body: bytes | msgspec.Raw) -> _Read:
    _met.clear()
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, BodyError):
            raise error.__cause__ from None
        raise BodyError(str(error)) from error
    except RecursionError as error:
        raise BodyError("it is nested too deeply") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BodyError(str(error)) from error
