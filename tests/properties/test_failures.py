"""Any sequence of runs: what is sent, what is held back, and which failures are new."""

from __future__ import annotations

import tempfile
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from records.outcomes import Verdict
from records.rows import Finished, RequestKind
from reporting.summary import RunTally
from state.outbox import Outbox
from tests.support.rows import Row, call_result, email_of, fill, row

START = datetime(2026, 1, 14, 12, tzinfo=timezone.utc)
RETRY_HOURS = 24
KINDS = (RequestKind.PROFILE, RequestKind.EVENT)
USERS = (1, 2, 3)
FORGOTTEN = "ForgottenUserError"  # no event can reach the user
ANSWERS = (
    *((Verdict.DELIVERED, "Success"),) * 3,
    *((Verdict.REJECTED, "BadParams"), (Verdict.REJECTED, FORGOTTEN)),
    *((Verdict.REJECTED, "BadParams"), (Verdict.UNAVAILABLE, "ReadTimeout")),
)
Answer = tuple[Verdict, str]


@dataclass
class UserModel:
    """What is known of a user, by request."""

    delivered: dict[RequestKind, str | None] = field(default_factory=dict)
    has_profile: bool = False
    # An event that was delivered before the profile ever was.
    early_event: str | None = None
    failed: dict[RequestKind, str] = field(default_factory=dict)  # codes
    rejected: dict[RequestKind, tuple[str, float]] = field(default_factory=dict)  # content, hours
    resolved_count: int = 0  # how often the last failure was gone

    def to_send(self, content: dict[RequestKind, str], hours: float) -> list[RequestKind]:
        """Return the requests that a run sends, if none of them is rejected."""
        profile, event = KINDS
        needed = {kind for kind in KINDS if self.delivered.get(kind) != content[kind]}
        held = {
            kind
            for kind in needed
            if kind in self.rejected
            and self.rejected[kind][0] == content[kind]
            and hours - self.rejected[kind][1] < RETRY_HOURS
        }
        if profile in held and (
            self.failed[profile] == FORGOTTEN or self.early_event == content[event]
        ):
            needed.discard(event)
        return [kind for kind in KINDS if kind in needed - held]

    def judge(self, kind: RequestKind, content: str, answer: Answer, hours: float) -> bool:
        """Note an answer, and return whether it is a failure that was not known."""
        verdict, code = answer
        is_new = verdict is not Verdict.DELIVERED and self.failed.get(kind) != code
        had_failed = self.failed.pop(kind, None) is not None
        self.rejected.pop(kind, None)
        self.resolved_count += verdict is Verdict.DELIVERED and had_failed and not self.failed
        if verdict is not Verdict.DELIVERED:
            self.failed[kind] = code
            if verdict is Verdict.REJECTED:
                self.rejected[kind] = (content, hours)
        elif kind is RequestKind.PROFILE:
            self.delivered[kind], self.has_profile = content, True
        elif self.has_profile:
            self.delivered[kind] = content
        else:
            self.early_event = content
        return is_new


runs = st.fixed_dictionaries(
    {
        "hours": st.sampled_from([0.2, 6, 25]),
        "contents": st.lists(
            st.tuples(st.sampled_from("AB"), st.sampled_from(["pricing", "settings"])),
            min_size=len(USERS),
            max_size=len(USERS),
        ),
        "answers": st.lists(
            st.sampled_from(ANSWERS), min_size=2 * len(USERS), max_size=2 * len(USERS)
        ),
        "ends_after": st.sampled_from([None, None, 1, 3]),  # requests
    }
)


@given(st.lists(runs, min_size=2, max_size=8))
def test_a_run_sends_what_the_rules_say(history: list[dict[str, object]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        models = {email_of(number): UserModel() for number in USERS}
        hours = 0.0
        for each in history:
            hours += float(str(each["hours"]))
            _run(Path(folder) / "state.sqlite3", models, hours, **each)  # type: ignore[arg-type]


def _run(
    path: Path,
    models: dict[str, UserModel],
    at_hours: float,
    *,
    hours: float,  # noqa: ARG001 - since the run before
    contents: list[tuple[str, str]],
    answers: list[Answer],
    ends_after: int | None,
) -> None:
    now = START + timedelta(hours=at_hours)
    found: list[Row] = [
        row(number, first_name=name, page=page)
        for number, (name, page) in zip(USERS, contents, strict=True)
    ]
    wanted = {
        email_of(number): dict(zip(KINDS, content, strict=True))
        for number, content in zip(USERS, contents, strict=True)
    }
    expected = {email: model.to_send(wanted[email], at_hours) for email, model in models.items()}
    resolved_before = sum(model.resolved_count for model in models.values())
    new: set[str] = set()
    with closing(Outbox(path)) as outbox:
        fill(outbox, found, now=now, rejected_retry_hours=RETRY_HOURS)
        pending = list(outbox.pending())
        sent = {
            each.email: [
                kind
                for kind, body in zip(KINDS, (each.profile, each.event), strict=True)
                if body is not None
            ]
            for each in pending
        }
        assert sent == {email: kinds for email, kinds in expected.items() if kinds}
        outbox.begin_delivery(is_complete_read=True)
        for email, kinds in expected.items():
            for kind in kinds:
                models[email].delivered[kind] = None  # in doubt
                if kind is RequestKind.EVENT:
                    models[email].early_event = None
        made = 0
        for each in pending:
            email = str(each.email)
            model = models[email]
            for kind in sent[email]:
                if made == ends_after:
                    break
                answer = answers[made]
                made += 1
                result = call_result(answer[0], code=answer[1])
                outbox.record([Finished(each.seq, kind, result, now.timestamp())])
                if model.judge(kind, wanted[email][kind], answer, at_hours):
                    new.add(email)
                if kind is RequestKind.PROFILE and answer[1] == FORGOTTEN:
                    break
        settled = list(outbox.settled())
        tally = RunTally()
        tally.add(settled)
        assert tally.new_count == len(new)
        # Each row has an age for each of its failures, and only for these.
        for done in settled:
            failures = {
                kind.value
                for kind, verdict in zip(KINDS, (done.state.update, done.state.event), strict=True)
                if verdict not in (None, "delivered")
            }
            assert set(done.ages()) == failures
        resolved = sum(model.resolved_count for model in models.values()) - resolved_before
        assert outbox.resolved_failures == resolved
