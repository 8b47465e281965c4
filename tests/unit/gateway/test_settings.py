"""Settings: read from the environment, every wrong one named with its value."""

import pytest

from moorage_gateway.settings import SettingsError, read_settings


def test_nothing_set_is_the_defaults() -> None:
    settings = read_settings({"PATH": "/bin"})
    assert (settings.port, settings.served_namespaces, settings.audience) == (8080, (None,), "moorage-gateway")


def test_namespaces_are_between_commas() -> None:
    assert read_settings({"MOORAGE_GATEWAY_NAMESPACES": "a, b"}).served_namespaces == ("a", "b")


def test_a_certificate_without_its_key_is_told() -> None:
    with pytest.raises(SettingsError, match="TLS_CERTIFICATE and MOORAGE_GATEWAY_TLS_KEY have to be set both"):
        read_settings({"MOORAGE_GATEWAY_TLS_CERTIFICATE": "/tls.crt"})


def test_all_that_is_wrong_is_told_at_once() -> None:
    wrong = {"MOORAGE_GATEWAY_PORT": "99999", "MOORAGE_GATEWAY_LOG_LEVEL": "LOUD", "MOORAGE_GATEWAY_PROT": "1"}
    with pytest.raises(SettingsError) as error:
        read_settings(wrong)
    for told in ("MOORAGE_GATEWAY_PORT is '99999'", "'LOUD'", "MOORAGE_GATEWAY_PROT is no setting"):
        assert told in str(error.value)
