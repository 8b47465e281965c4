"""Where our credentials are taken from, and what is said where there are none that can be used."""

import base64
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from moorage_gateway.kube.credentials import Connection, CredentialsError, connect, server_alone

NOWHERE = Path("/nonexistent")
AUTHORITY = trustme.CA()


def kubeconfig(folder: Path, user: dict[str, Any], **cluster: Any) -> dict[str, str]:
    """The environment of somebody whose kubeconfig has that user and cluster."""
    config = {
        "current-context": "dev",
        "contexts": [{"name": "dev", "context": {"cluster": "here", "user": "me"}}],
        "clusters": [{"name": "here", "cluster": {"server": "https://127.0.0.1:6443", **cluster}}],
        "users": [{"name": "me", "user": user}],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return {"KUBECONFIG": str(path)}


def data(content: bytes) -> str:
    """Content as a kubeconfig has it inside."""
    return base64.b64encode(content).decode()


def test_a_pod_acts_as_its_service_account_and_reads_a_new_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first\n")
    (tmp_path / "ca.crt").write_bytes(AUTHORITY.cert_pem.bytes())
    environment = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443", "KUBECONFIG": "/ignored"}
    connection = connect(environment, tmp_path)
    assert (connection.server, connection.headers()) == ("https://[fd00::1]:443", {"Authorization": "Bearer first"})
    assert connection.tls
    assert connection.tls.verify_mode is ssl.CERT_REQUIRED
    (tmp_path / "token").write_text("second")
    assert connect(environment, tmp_path).token == "second"


def test_a_kubeconfig_with_a_token(tmp_path: Path) -> None:
    environment = kubeconfig(
        tmp_path, {"token": "secret"}, **{"certificate-authority-data": data(AUTHORITY.cert_pem.bytes())}
    )
    connection = connect(environment, NOWHERE)
    assert (connection.server, connection.token) == ("https://127.0.0.1:6443", "secret")
    assert connection.tls
    assert len(connection.tls.get_ca_certs()) == 1
    assert "secret" not in repr(connection)


def test_a_kubeconfig_with_a_client_certificate_in_files_or_inside(tmp_path: Path) -> None:
    issued = AUTHORITY.issue_cert("me")
    certificate, key = issued.cert_chain_pems[0].bytes(), issued.private_key_pem.bytes()
    (tmp_path / "crt").write_bytes(certificate)
    (tmp_path / "key").write_bytes(key)
    for user in (
        {"client-certificate-data": data(certificate), "client-key-data": data(key)},
        {"client-certificate": str(tmp_path / "crt"), "client-key": str(tmp_path / "key")},
    ):
        connection = connect(kubeconfig(tmp_path, user), NOWHERE)
        assert connection.tls
        assert connection.headers() == {}


def test_verification_is_off_only_where_the_kubeconfig_says_so(tmp_path: Path) -> None:
    connection = connect(kubeconfig(tmp_path, {}, **{"insecure-skip-tls-verify": True}), NOWHERE)
    assert connection.tls
    assert connection.tls.verify_mode is ssl.CERT_NONE


def test_plain_http_needs_no_certificates(tmp_path: Path) -> None:
    assert connect(kubeconfig(tmp_path, {}, server="http://127.0.0.1:1"), NOWHERE) == Connection("http://127.0.0.1:1")


@pytest.mark.parametrize("user", [{"exec": {"command": "aws"}}, {"auth-provider": {"name": "gcp"}}])
def test_credentials_from_another_program_are_said_to_be_unsupported(tmp_path: Path, user: dict[str, Any]) -> None:
    with pytest.raises(CredentialsError, match="another program"):
        connect(kubeconfig(tmp_path, user), NOWHERE)


def test_no_credentials_are_told_with_what_would_do() -> None:
    with pytest.raises(CredentialsError, match="KUBECONFIG"):
        connect({}, NOWHERE)


@pytest.mark.parametrize("content", ["", "[]", "current-context: dev", "{", "current-context: x\ncontexts: []"])
def test_a_kubeconfig_that_is_none_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "broken"
    path.write_text(content)
    with pytest.raises(CredentialsError, match=str(path)):
        connect({"KUBECONFIG": str(path)}, NOWHERE)


def test_a_kubeconfig_that_is_missing_is_named() -> None:
    with pytest.raises(CredentialsError, match="/nonexistent"):
        connect({"KUBECONFIG": "/nonexistent"}, NOWHERE)


def test_files_are_found_from_where_the_kubeconfig_lies(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(AUTHORITY.cert_pem.bytes())
    (tmp_path / "token").write_text("theirs\n")
    environment = kubeconfig(tmp_path, {"tokenFile": "token"}, **{"certificate-authority": "ca.crt"})
    assert connect(environment, NOWHERE).token == "theirs"


def test_the_server_alone_comes_without_any_credential(tmp_path: Path) -> None:
    issued = AUTHORITY.issue_cert("me")
    user = {
        "token": "secret",
        "client-certificate-data": data(issued.cert_chain_pems[0].bytes()),
        # A key that is none would be an error if it were read.
        "client-key-data": data(b"no key"),
    }
    environment = kubeconfig(tmp_path, user, **{"certificate-authority-data": data(AUTHORITY.cert_pem.bytes())})
    connection = server_alone(environment, NOWHERE)
    assert connection.headers() == {}
    assert connection.tls
    assert connection.tls.verify_mode is ssl.CERT_REQUIRED
    (tmp_path / "ca.crt").write_bytes(AUTHORITY.cert_pem.bytes())
    (tmp_path / "token").write_text("of the pod")
    account = server_alone({"KUBERNETES_SERVICE_HOST": "fd00::1"}, tmp_path)
    assert (account.server, account.headers()) == ("https://[fd00::1]:443", {})
    with pytest.raises(CredentialsError, match="KUBECONFIG"):
        server_alone({}, NOWHERE)
