"""An authority of the tests, what it signs, and a door that opens by that."""

from __future__ import annotations

import datetime as dt
import ipaddress
import select
import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LOOPBACK = "127.0.0.1"
_SECONDS = 30.0
_BLOCK = 65_536
_UNAUTHORIZED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Authority:
    """Who signs certificates; `file` is its own, by which clients trust what it has signed."""

    def __init__(self, folder: Path, name: str = "an authority of tests") -> None:
        """Make its key and its certificate in `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        self.file = folder / "ca.pem"
        basic = x509.BasicConstraints(ca=True, path_length=0)
        signs = x509.KeyUsage(
            key_cert_sign=True,
            crl_sign=True,
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        own = _draft(self._name, self._name, self._key).add_extension(basic, critical=True)
        own = own.add_extension(signs, critical=True)
        _write(self.file, own.sign(self._key, hashes.SHA256()))

    def certify(self, *hosts: str) -> tuple[Path, Path]:
        """Sign a certificate for `hosts`; return its file, and that of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([_alternative(host) for host in hosts])
        draft = _draft(_named(hosts[0]), self._name, key).add_extension(names, critical=False)
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        draft = draft.add_extension(signer, critical=False)
        pem, secret = self._folder / f"{hosts[0]}.pem", self._folder / f"{hosts[0]}.key"
        _write(pem, draft.sign(self._key, hashes.SHA256()))
        secret.touch(mode=0o600)
        secret.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return pem, secret


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _draft(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)  # noqa: TID251 - a certificate has a time of day
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
    )


def _write(file: Path, certificate: x509.Certificate) -> None:
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


@contextmanager
def behind_tls(port: int, signed: tuple[Path, Path], account: str = "") -> Iterator[int]:
    """Speak TLS before the server at `port`, as a proxy does; give the port of that.

    Who does not show the `account` (`USER:PASSWORD`) is answered 401.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*signed)
    wanted = f"Basic {b64encode(account.encode()).decode()}" if account else ""
    listener = socket.create_server((LOOPBACK, 0))
    accepting = threading.Thread(
        target=_accept, args=(listener, context, port, wanted), daemon=True
    )
    accepting.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join(_SECONDS)


def _accept(listener: socket.socket, context: ssl.SSLContext, port: int, wanted: str) -> None:
    with suppress(OSError):  # it is closed
        while True:
            near, _ = listener.accept()
            one = threading.Thread(target=_pass, args=(near, context, port, wanted), daemon=True)
            one.start()


def _pass(near: socket.socket, context: ssl.SSLContext, port: int, wanted: str) -> None:
    """Pass on what a client says, and what it is answered, until one of both has enough."""
    near.settimeout(_SECONDS)
    with suppress(OSError), context.wrap_socket(near, server_side=True) as client:
        head = _until(client, b"\r\n\r\n")
        if wanted.encode() not in head:
            client.sendall(_UNAUTHORIZED)
            return
        with socket.create_connection((LOOPBACK, port), _SECONDS) as far:
            far.sendall(head)
            while True:
                ready = [client] if client.pending() else _ready(client, far)
                for one in ready:
                    block = one.recv(_BLOCK)
                    if not block:
                        return
                    (far if one is client else client).sendall(block)


def _ready(*sockets: socket.socket) -> list[socket.socket]:
    return select.select(sockets, [], [], _SECONDS)[0]


def _until(client: ssl.SSLSocket, end: bytes) -> bytes:
    text = b""
    while end not in text and (block := client.recv(_BLOCK)):
        text += block
    return text
