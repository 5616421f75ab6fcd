"""HTTP response as it is sent: bytes, headers, and how the connection ends."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import orjson

from sandbox.responses import ApiResponse


class Ending(enum.Enum):
    """How a response ends; the value is its key in the `answers` counts of GET /sandbox/state."""

    WHOLE = "whole"
    HALF = "half_body"
    DROP = "dropped"
    HANG = "hung"


@dataclass(frozen=True, slots=True)
class WireResponse:
    """What the client receives. With DROP and HANG nothing is sent."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    ending: Ending = Ending.WHOLE
    interim_count: int = 0  # 103 responses that come first


def to_wire(response: ApiResponse) -> WireResponse:
    """Return the response as the API sends it when no fault interferes."""
    return WireResponse(response.status, orjson.dumps(response.body), dict(response.headers))
