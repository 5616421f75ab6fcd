"""Certificates for the sandbox: a CA of our own, and a bundle that makes a program trust it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from requests.utils import DEFAULT_CA_BUNDLE_PATH

_KEY_TYPES = {
    "ecdsa": ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
    "rsa": ("-newkey", "rsa:2048"),
}
KEY_TYPES = tuple(_KEY_TYPES)


@dataclass(frozen=True)
class Certificates:
    """A server's certificate and key, and the CAs of certifi with the one that issued it."""

    certificate: Path
    key: Path
    bundle: Path

    @property
    def sandbox_flags(self) -> list[str]:
        """Flags of `python -m sandbox`."""
        return ["--tls-certificate", str(self.certificate), "--tls-key", str(self.key)]

    @property
    def environment(self) -> dict[str, str]:
        """Variables that make requests, httpx and OpenSSL use the bundle."""
        names = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
        return dict.fromkeys(names, str(self.bundle))


@contextmanager
def certificates(key_type: str = "ecdsa") -> Iterator[Certificates]:
    """Make a CA and a certificate for 127.0.0.1 and localhost, with the `openssl` command."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        ca, ca_key = folder / "ca.pem", folder / "ca.key"
        certificate, key, request = folder / "server.pem", folder / "key.pem", folder / "request"
        extensions = folder / "extensions"
        extensions.write_text(
            "subjectAltName=IP:127.0.0.1,DNS:localhost\nauthorityKeyIdentifier=keyid\n",
            encoding="ascii",
        )
        new_key = _KEY_TYPES[key_type]
        _openssl(
            *("req", "-x509", *new_key, "-nodes", "-days", "2", "-subj", "/CN=A benchmark CA"),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
            *("-keyout", ca_key, "-out", ca),
        )
        _openssl(
            *("req", *new_key, "-nodes", "-subj", "/CN=localhost"),
            *("-keyout", key, "-out", request),
        )
        _openssl(
            *("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial"),
            *("-days", "2", "-extfile", extensions, "-out", certificate),
        )
        bundle = folder / "bundle.pem"
        bundle.write_bytes(Path(DEFAULT_CA_BUNDLE_PATH).read_bytes() + b"\n" + ca.read_bytes())
        yield Certificates(certificate, key, bundle)


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(  # noqa: S603 - our own arguments
        ["openssl", *map(str, arguments)],  # noqa: S607 - the installed openssl
        check=True,
        capture_output=True,
    )
