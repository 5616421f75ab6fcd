"""Make a CA and server certificates, valid or expired, with `openssl`."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_ca(folder: Path) -> Path:
    """Make a CA in a new folder, its key beside it."""
    folder.mkdir()
    ca = folder / "ca.pem"
    _openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=A test CA"),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),  # Python 3.13 insists on it
        *("-keyout", folder / "ca.key", "-out", ca),
    )
    return ca


def make_certificate(ca: Path, name: str, *, days: int = 2) -> tuple[Path, Path]:
    """Issue a certificate of the CA (`DNS:localhost`, `IP:127.0.0.1`); return it and its key.

    With `days` -1 it expired yesterday.
    """
    folder = ca.parent
    key, request = folder / f"key{days}.pem", folder / "request.pem"
    certificate = folder / f"server{days}.pem"
    (folder / "extensions").write_text(
        f"subjectAltName={name}\nauthorityKeyIdentifier=keyid\n", encoding="ascii"
    )
    _openssl(
        *("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test"),
        *("-keyout", key, "-out", request),
    )
    _openssl(
        *("x509", "-req", "-in", request, "-CA", ca, "-CAkey", folder / "ca.key"),
        *("-days", str(days), "-CAcreateserial", "-extfile", folder / "extensions"),
        *("-out", certificate),
    )
    return certificate, key


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
