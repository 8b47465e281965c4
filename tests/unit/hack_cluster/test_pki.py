"""Certificates say who a component is, and where it may be reached."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hack.cluster.host.addresses import NODE_NAME, Addresses
from hack.cluster.host.pki import certificates_for, write_pki


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pki")
    write_pki(path, certificates_for(Addresses(1), control_plane_only=False))
    return path


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def addresses(certificate: x509.Certificate) -> set[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(address) for address in names.get_values_for_type(x509.IPAddress)}


def test_the_api_server_is_reached_by_loopback_service_and_its_own_address(folder: Path) -> None:
    certificate = load(folder / "apiserver.crt")
    assert addresses(certificate) == {"127.0.0.1", "10.97.0.1", "10.243.1.1"}
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "kubernetes.default.svc" in names.get_values_for_type(x509.DNSName)


def test_the_kubelet_is_a_node_and_is_reached_by_its_address(folder: Path) -> None:
    certificate = load(folder / "kubelet.crt")
    assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == f"system:node:{NODE_NAME}"
    assert certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value == "system:nodes"
    assert str(ipaddress.ip_address("10.244.1.1")) in addresses(certificate)


def test_every_certificate_is_signed_by_the_authority(folder: Path) -> None:
    authority = load(folder / "ca.crt")
    for spec in certificates_for(Addresses(1), control_plane_only=False):
        load(folder / f"{spec.file}.crt").verify_directly_issued_by(authority)


def test_only_servers_may_serve(folder: Path) -> None:
    usages = load(folder / "admin.crt").extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_keys_are_for_their_owner_only(folder: Path) -> None:
    assert {path.stat().st_mode & 0o777 for path in folder.glob("*.key")} == {0o600}


def test_a_control_plane_alone_has_no_node_certificates() -> None:
    files = {spec.file for spec in certificates_for(Addresses(1), control_plane_only=True)}
    assert files == {"apiserver", "admin", "kube-controller-manager", "kube-scheduler", "kwok"}
