"""Which Iterable project the state file is about: noted with the first delivered request.

Otherwise a run for another project, such as the real one after a test project, would count its
users as unchanged and send nothing.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from enum import Enum
from hashlib import blake2b
from urllib.parse import urlsplit

from config.identity import IdentifyBy
from state.database import StateError
from state.remembered import RememberedTable

_NAMES = ("project_address", "project_identify_by", "project_key_salt", "project_key_hash")
_JUDGE = "judging_project"  # whose rejections are remembered: a salted hash of address and key
_DEFAULT_PORTS = {"http": 80, "https": 443}


class OtherAddressError(StateError):
    """The state file, which is in order, is of a project at another address, or of another
    `IDENTIFY_BY`.
    """


@dataclass(frozen=True)
class Project:
    """The project that the settings lead to."""

    address: str
    api_key: str = field(repr=False)
    identify_by: IdentifyBy = IdentifyBy.EMAIL  # what names a user in every request

    @property
    def normal_address(self) -> str:
        """The address in the form in which two addresses of one place are equal."""
        parts = urlsplit(self.address)
        scheme, port = parts.scheme.lower(), parts.port
        place = f"{scheme}://{(parts.hostname or '').rstrip('.')}"
        if port is not None and port != _DEFAULT_PORTS.get(scheme):
            place += f":{port}"
        return place + parts.path.rstrip("/")


class Match(Enum):
    """How the project of the settings compares with the noted one."""

    NOTHING_NOTED = "nothing noted"
    SAME = "same"
    OTHER_KEY = "other key"  # the same project, or another one in the same data centre


class ProjectMemory:
    """The noted project of an open state file. Raises StateError."""

    def __init__(self, remembered: RememberedTable) -> None:
        self._remembered = remembered

    def match(self, project: Project) -> Match:
        """Compare a project with the noted one; raises OtherAddressError where it is another."""
        noted = [self._remembered.read(name) for name in _NAMES]
        if noted == [None] * len(_NAMES):
            return Match.NOTHING_NOTED
        address, identify_by, salt, key_hash = (text or "" for text in noted)
        if identify_by != project.identify_by.value:
            raise OtherAddressError(
                f"The state file {self._remembered.path} remembers what was delivered with "
                f"IDENTIFY_BY={identify_by}, not {project.identify_by.value}. Nothing was sent: "
                "set STATE_FILE to another file, or move that file away (the next run then sends "
                "everything)."
            )
        if address != project.normal_address:
            raise OtherAddressError(
                f"The state file {self._remembered.path} remembers what was delivered to {address},"
                f" not to {project.normal_address}. Nothing was sent: set STATE_FILE to another"
                " file for this project, or move that file away."
            )
        return Match.SAME if _hash_key(project.api_key, salt) == key_hash else Match.OTHER_KEY

    def has_judged(self, project: Project) -> bool:
        """Return whether the remembered rejections come from this project and key."""
        salt, _dot, noted = (self._remembered.read(_JUDGE) or "").partition(".")
        return bool(salt) and _hash_judge(project, salt) == noted

    def note_judging(self, project: Project) -> None:
        """Store a project as the one whose rejections are remembered; the caller commits."""
        salt = secrets.token_hex(16)
        self._remembered.write(_JUDGE, f"{salt}.{_hash_judge(project, salt)}")

    def note(self, project: Project) -> None:
        """Store a project; the caller commits."""
        salt = secrets.token_hex(16)
        values = (
            project.normal_address,
            project.identify_by.value,
            salt,
            _hash_key(project.api_key, salt),
        )
        for name, value in zip(_NAMES, values, strict=True):
            self._remembered.write(name, value)


def _hash_key(api_key: str, salt: str) -> str:
    return blake2b(api_key.encode(), key=salt.encode()[:64], digest_size=16).hexdigest()


def _hash_judge(project: Project, salt: str) -> str:
    return _hash_key(f"{project.normal_address} {project.api_key}", salt)
