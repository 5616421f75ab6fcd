"""Calls to the sandbox's API as a client would make them, well-formed or not."""

from __future__ import annotations

import json
from typing import Any

import requests

from sandbox.iterable_api import IterableSandbox


def post(
    sandbox: IterableSandbox,
    endpoint: str,
    body: Any,
    *,
    key: str | None = "a-key",
    timeout: float = 5,
) -> requests.Response:
    return requests.post(
        f"{sandbox.url}/api/{endpoint}",
        data=body if isinstance(body, bytes) else json.dumps(body).encode(),
        headers={} if key is None else {"Api-Key": key},
        allow_redirects=False,
        timeout=timeout,
    )


def get(sandbox: IterableSandbox, path: str) -> requests.Response:
    return requests.get(f"{sandbox.url}{path}", headers={"Api-Key": "a-key"}, timeout=5)
