"""Makes a cluster's keys and certificates: an authority, and a certificate for each component that calls another."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hack.cluster.host.addresses import LOOPBACK, NODE_NAME, Addresses

VALIDITY = datetime.timedelta(days=365)
MASTERS = "system:masters"
DNS_USER = "moorage:coredns"


@dataclass(frozen=True)
class CertificateSpec:
    """Who a certificate speaks for; with names or addresses it is a server's certificate too."""

    file: str
    common_name: str
    organization: str = ""
    dns_names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()

    @property
    def is_server(self) -> bool:
        return bool(self.dns_names or self.addresses)


SERVICE_NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")


def certificates_for(addresses: Addresses, *, control_plane_only: bool) -> tuple[CertificateSpec, ...]:
    """Give the certificates that a cluster of this kind needs."""
    control_plane = (
        CertificateSpec(
            "apiserver",
            "kube-apiserver",
            dns_names=("localhost", *SERVICE_NAMES),
            addresses=(LOOPBACK, addresses.first_service, addresses.host),
        ),
        CertificateSpec("admin", "moorage-admin", MASTERS),
        CertificateSpec("kube-controller-manager", "system:kube-controller-manager"),
        CertificateSpec("kube-scheduler", "system:kube-scheduler"),
        # A user of its own, so that tests which count writes can leave the fake nodes' heartbeats out.
        CertificateSpec("kwok", "kwok", MASTERS),
    )
    return control_plane if control_plane_only else control_plane + _node_certificates(addresses)


def _node_certificates(addresses: Addresses) -> tuple[CertificateSpec, ...]:
    return (
        CertificateSpec("apiserver-kubelet-client", "kube-apiserver-kubelet-client", MASTERS),
        CertificateSpec(
            # exec and logs reach the kubelet by its address, which must therefore be in the certificate.
            "kubelet",
            f"system:node:{NODE_NAME}",
            "system:nodes",
            dns_names=(NODE_NAME,),
            addresses=(addresses.node, LOOPBACK),
        ),
        CertificateSpec("kube-proxy", "system:kube-proxy"),
        CertificateSpec("coredns", DNS_USER),
    )


def write_pki(folder: Path, specs: tuple[CertificateSpec, ...]) -> None:
    """Write the authority (ca), the service-account key pair (sa) and all certificates into a folder."""
    authority = Authority.create()
    _write(folder / "ca.crt", _certificate_pem(authority.certificate))
    accounts = ec.generate_private_key(ec.SECP256R1())
    _write(folder / "sa.key", _key_pem(accounts))
    public = serialization.PublicFormat.SubjectPublicKeyInfo
    _write(folder / "sa.pub", accounts.public_key().public_bytes(serialization.Encoding.PEM, public))
    for spec in specs:
        certificate, key = authority.issue(spec)
        _write(folder / f"{spec.file}.crt", _certificate_pem(certificate))
        _write(folder / f"{spec.file}.key", _key_pem(key))


@dataclass(frozen=True)
class Authority:
    """The cluster's certificate authority; its key never leaves this process."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("moorage-ca", "")
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        builder = _builder(name, name, key).add_extension(constraints, critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        # Python 3.13 verifies strictly (RFC 5280): an authority must say that it may sign certificates.
        builder = builder.add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        return cls(builder.sign(key, hashes.SHA256()), key)

    def issue(self, spec: CertificateSpec) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        """Sign a new key for a component."""
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        subject = _name(spec.common_name, spec.organization)
        builder = _builder(subject, self.certificate.subject, key)
        if spec.is_server:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
            builder = builder.add_extension(_alternative_names(spec), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
        )
        return builder.sign(self.key, hashes.SHA256()), key


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # A clock that is a little behind must not make a new certificate invalid.
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + VALIDITY)
    )


def _usage(**allowed: bool) -> x509.KeyUsage:
    uses = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{use: allowed.get(use, False) for use in uses})


def _name(common_name: str, organization: str) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(attributes)


def _alternative_names(spec: CertificateSpec) -> x509.SubjectAlternativeName:
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in spec.dns_names]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in spec.addresses]
    return x509.SubjectAlternativeName(names)


def _certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


def _write(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)
