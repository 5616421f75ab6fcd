"""The sandbox's webhooks; `end_to_end/test_listen.py` has them with a listener."""

from __future__ import annotations

import pytest

from sandbox.__main__ import main


@pytest.mark.parametrize(
    "url",
    [
        *("x", "127.0.0.1:8080", "https://127.0.0.1/", "http://[", "http://127.0.0.1:99999/"),
        *("http://example.com/", "http://192.0.2.1/", "ftp://localhost/", "http:///path"),
    ],
)
def test_an_address_that_is_not_of_this_machine_was_a_traceback(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--webhook", url])
    assert (
        f"webhooks are posted to this machine only, as to http://127.0.0.1:8080/, not to {url}"
        in (capsys.readouterr().err)
    )
