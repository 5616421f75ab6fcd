"""Two servers on loopback that record requests: a website, with or without TLS, and a proxy.

The website sends the response that a test sets.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SUCCESS = b'{"msg":"","code":"Success","params":null}'


@dataclass
class Request:
    """One request as it came."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Website:
    """A running server; `response` may be replaced between requests."""

    url: str
    requests: list[Request] = field(default_factory=list)
    connection_count: int = 0
    open_count: int = 0
    response: bytes = SUCCESS
    response_headers: dict[str, str] = field(default_factory=dict)
    closes_after_response: bool = False  # without `Connection: close`
    before_response: Callable[[], object] = lambda: None


class _Listener(socketserver.TCPServer):
    """Accepts connections, over TLS if it has a context."""

    context: ssl.SSLContext | None = None

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        if self.context is not None:
            connection = self.context.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address

    def handle_error(self, *_arguments: object) -> None:
        """Ignore errors: a client may distrust the certificate, or ask a proxy for no tunnel."""


class _WebServer(_Listener, ThreadingHTTPServer):
    pass


class _ProxyServer(_Listener, socketserver.ThreadingTCPServer):
    daemon_threads = True


def _to_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@contextlib.contextmanager
def website(
    certificate: Path | None = None, *, context: ssl.SSLContext | None = None
) -> Iterator[Website]:
    """Serve on a free port, over TLS if a certificate is given (PEM, with its key).

    `context` is for other TLS settings.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            with counting:
                site.connection_count += 1
                site.open_count += 1

        def finish(self) -> None:
            super().finish()
            with counting:
                site.open_count -= 1

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            site.requests.append(Request(self.requestline, dict(self.headers), body))
            site.before_response()
            self.send_response_only(200)
            for name, value in site.response_headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(site.response)))
            self.end_headers()
            self.wfile.write(site.response)
            if site.closes_after_response:
                self.close_connection = True

        do_GET = do_POST

        def log_message(self, *_arguments: object) -> None:
            """Write no log."""

    counting = threading.Lock()
    if certificate is not None:
        context = _to_context(certificate)
    server = _WebServer(("127.0.0.1", 0), Handler)
    server.context = context
    scheme = "http" if context is None else "https"
    site = Website(f"{scheme}://127.0.0.1:{server.server_address[1]}")
    with _running(server):
        yield site


@contextlib.contextmanager
def proxy(certificate: Path | None = None) -> Iterator[Website]:
    """Run a proxy that tunnels (`CONNECT`) and records everything that it can read.

    With a certificate it is itself reached over TLS.
    """

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            line = self.rfile.readline().decode("latin-1").strip()
            headers = {}
            while header := self.rfile.readline().decode("latin-1").strip():
                name, _, value = header.partition(": ")
                headers[name] = value
            seen.requests.append(Request(line, headers, b""))
            host, _, port = line.split()[1].rpartition(":")
            with socket.create_connection((host, int(port)), timeout=5) as there:
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=_pump, args=(there, self.connection), daemon=True)
                back.start()
                _pump(self.connection, there)
                back.join(5)

    context = None if certificate is None else _to_context(certificate)
    server = _ProxyServer(("127.0.0.1", 0), Handler)
    server.context = context
    scheme = "http" if context is None else "https"
    seen = Website(f"{scheme}://127.0.0.1:{server.server_address[1]}")
    with _running(server):
        yield seen


@contextlib.contextmanager
def _running(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(65_536):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)


def make_self_signed(folder: Path, name: str) -> Path:
    """Make a certificate for `name` (`IP:127.0.0.1`, `DNS:localhost`) that vouches for itself."""
    pem, key = folder / "certificate.pem", folder / "key.pem"
    command = [
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
        *("-subj", "/CN=test", "-addext", f"subjectAltName={name}"),
        # Required by Python 3.13.
        *("-addext", "keyUsage=critical,digitalSignature,keyCertSign"),
        *("-keyout", str(key), "-out", str(pem)),
    ]
    subprocess.run(command, check=True, capture_output=True)
    pem.write_bytes(pem.read_bytes() + key.read_bytes())
    return pem
