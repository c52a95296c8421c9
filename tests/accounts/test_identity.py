"""Tokens and cookies -> Actor: what is believed, and what is not."""

import base64
import json
from collections.abc import Callable
from datetime import timedelta

import jwt
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlmodel import select

from tests.conftest import People
from tests.jobs.conftest import until
from tests.postgres import both_databases
from visionsuit.accounts.identity import BadToken, hash_api_token, resolve_actor
from visionsuit.accounts.sessions import (
    delete_expired_sessions,
    end_all_sessions,
    end_session,
    issue_token,
    read_token,
)
from visionsuit.accounts.tables import Account, AccountSession, ApiToken
from visionsuit.core.actor import GUEST, SYSTEM, Actor, Scope
from visionsuit.core.clock import utcnow
from visionsuit.runtime import Runtime


@pytest.fixture
def token_of(runtime: Runtime) -> Callable[[Actor], str]:
    def make(actor: Actor) -> str:
        with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
            account = ctx.session.get(Account, actor.user_id)
            assert account is not None
        return issue_token(runtime, account)

    return make


def claims_of(token: str) -> dict[str, object]:
    return jwt.decode(token, options={"verify_signature": False})


@pytest.mark.parametrize("name", ["user", "curator", "admin", "superadmin"])
def test_session_token_is_its_account_as_cookie_and_as_bearer(
    runtime: Runtime, people: People, token_of: Callable[[Actor], str], name: str
) -> None:
    actor = getattr(people, name)
    token = token_of(actor)
    assert resolve_actor(runtime, None, token) == actor
    assert resolve_actor(runtime, token, None) == actor


def test_bearer_goes_before_cookie(runtime: Runtime, people: People, token_of: Callable[[Actor], str]) -> None:
    assert resolve_actor(runtime, token_of(people.admin), token_of(people.user)) == people.admin
    with pytest.raises(BadToken):
        resolve_actor(runtime, "nonsense", token_of(people.user))


def test_nobody(runtime: Runtime) -> None:
    assert resolve_actor(runtime, None, None) is GUEST
    assert resolve_actor(runtime, None, "") is GUEST
    with pytest.raises(BadToken):
        resolve_actor(runtime, "", None)


def forge_none(token: str, secret: bytes) -> str:
    return jwt.encode(claims_of(token), "", algorithm="none")


def forge_none_with_signature(token: str, secret: bytes) -> str:
    header = base64.urlsafe_b64encode(json.dumps({"alg": "none", "typ": "JWT"}).encode()).rstrip(b"=").decode()
    _, body, signature = token.split(".")
    return f"{header}.{body}.{signature}"


def forge_other_secret(token: str, secret: bytes) -> str:
    return jwt.encode(claims_of(token), b"x" * 32, algorithm="HS256")


def forge_other_algorithm(token: str, secret: bytes) -> str:
    return jwt.encode(claims_of(token), secret * 2, algorithm="HS512")


def forge_expired(token: str, secret: bytes) -> str:
    return jwt.encode({**claims_of(token), "exp": 1_700_000_000}, secret, algorithm="HS256")


def forge_without_end(token: str, secret: bytes) -> str:
    claims = claims_of(token)
    del claims["exp"]
    return jwt.encode(claims, secret, algorithm="HS256")


def forge_other_version(token: str, secret: bytes) -> str:
    return jwt.encode({**claims_of(token), "ver": 7}, secret, algorithm="HS256")


def forge_text_version(token: str, secret: bytes) -> str:
    return jwt.encode({**claims_of(token), "ver": "0"}, secret, algorithm="HS256")


def forge_unknown_session(token: str, secret: bytes) -> str:
    return jwt.encode({**claims_of(token), "jti": "another-session0"}, secret, algorithm="HS256")


def cut_signature(token: str, secret: bytes) -> str:
    return token.rpartition(".")[0] + "."


def change_body(token: str, secret: bytes) -> str:
    header, body, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    changed = base64.urlsafe_b64encode(json.dumps({**claims, "sub": "x"}).encode()).rstrip(b"=").decode()
    return f"{header}.{changed}.{signature}"


FORGERIES = [
    forge_none,
    forge_none_with_signature,
    forge_other_secret,
    forge_other_algorithm,
    forge_expired,
    forge_without_end,
    forge_other_version,
    forge_text_version,
    forge_unknown_session,
    cut_signature,
    change_body,
]


@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
def test_forged_tokens_are_nobody(
    runtime: Runtime, people: People, token_of: Callable[[Actor], str], forge: Callable[[str, bytes], str]
) -> None:
    good = token_of(people.admin)
    bad = forge(good, runtime.secret)
    assert resolve_actor(runtime, None, bad) is GUEST
    with pytest.raises(BadToken):
        resolve_actor(runtime, bad, None)
    assert resolve_actor(runtime, good, None) == people.admin


def test_session_of_one_account_does_not_carry_another(
    runtime: Runtime, people: People, token_of: Callable[[Actor], str]
) -> None:
    claims = {**claims_of(token_of(people.user)), "sub": people.admin.public_id}
    assert resolve_actor(runtime, None, jwt.encode(claims, runtime.secret, algorithm="HS256")) is GUEST


def test_every_changed_character_spoils_a_token(
    runtime: Runtime, people: People, token_of: Callable[[Actor], str]
) -> None:
    token = token_of(people.user)
    for place in range(0, len(token), 7):
        other = "A" if token[place] != "A" else "B"
        assert read_token(runtime, token[:place] + other + token[place + 1 :]) is None
    for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_":
        if last != token[-1]:
            assert read_token(runtime, token[:-1] + last) is None


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(text=st.text(max_size=200) | st.text("ey.AJh-_=vs", max_size=80))
@both_databases
def test_any_text_is_refused_without_a_crash(runtime: Runtime, text: str) -> None:
    assert resolve_actor(runtime, None, text) is GUEST
    for bearer in (text, f"vs_{text}"):
        with pytest.raises(BadToken):
            resolve_actor(runtime, bearer, None)


def test_ending_one_session_leaves_the_other(
    runtime: Runtime, people: People, token_of: Callable[[Actor], str]
) -> None:
    first, second = token_of(people.user), token_of(people.user)
    with runtime.open_ctx(people.user) as ctx:
        end_session(ctx, first)
        end_session(ctx, "nonsense")
    assert resolve_actor(runtime, None, first) is GUEST
    assert resolve_actor(runtime, None, second) == people.user


@both_databases
def test_ending_all_sessions(runtime: Runtime, people: People, token_of: Callable[[Actor], str]) -> None:
    tokens = [token_of(people.user) for _ in range(2)]
    bystander = token_of(people.admin)
    with runtime.open_ctx(SYSTEM) as ctx:
        account = ctx.session.get(Account, people.user.user_id)
        assert account is not None
        end_all_sessions(ctx, account)
    assert [resolve_actor(runtime, None, token) for token in tokens] == [GUEST, GUEST]
    assert resolve_actor(runtime, None, bystander) == people.admin


def test_deactivated_account_is_not_signed_in(
    runtime: Runtime, people: People, token_of: Callable[[Actor], str]
) -> None:
    token = token_of(people.user)
    with runtime.open_ctx(SYSTEM) as ctx:
        account = ctx.session.get(Account, people.user.user_id)
        assert account is not None
        account.is_active = False
    assert resolve_actor(runtime, None, token) is GUEST


def test_expired_row_ends_a_session_and_is_swept(
    runtime: Runtime, people: People, token_of: Callable[[Actor], str]
) -> None:
    token, other = token_of(people.user), token_of(people.admin)
    with runtime.open_ctx(SYSTEM) as ctx:
        row = ctx.session.get(AccountSession, str(claims_of(token)["jti"]))
        assert row is not None
        row.expires_at = utcnow() - timedelta(seconds=1)
    assert resolve_actor(runtime, None, token) is GUEST
    with runtime.open_ctx(SYSTEM) as ctx:
        assert delete_expired_sessions(ctx) == 1
    assert resolve_actor(runtime, None, other) == people.admin


def test_a_token_that_was_good_ends_in_time(runtime: Runtime, people: People, token_of: Callable[[Actor], str]) -> None:
    end = int(utcnow().timestamp()) + 2
    token = jwt.encode({**claims_of(token_of(people.user)), "exp": end}, runtime.secret, algorithm="HS256")
    assert resolve_actor(runtime, None, token) == people.user
    until(lambda: resolve_actor(runtime, None, token) is GUEST)
    assert utcnow().timestamp() >= end


@both_databases
def test_last_seen_is_written_at_most_once_a_minute(
    runtime: Runtime, people: People, token_of: Callable[[Actor], str]
) -> None:
    token = token_of(people.user)

    def seen(back: timedelta | None = None) -> float:
        with runtime.open_ctx(SYSTEM) as ctx:
            row = ctx.session.get(AccountSession, str(claims_of(token)["jti"]))
            assert row is not None
            if back:
                row.last_seen_at -= back
            return row.last_seen_at.timestamp()

    before = seen()
    resolve_actor(runtime, None, token)
    assert seen() == before
    old = seen(back=timedelta(minutes=2))
    resolve_actor(runtime, None, token)
    assert seen() >= old + 119


@both_databases
class TestApiTokens:
    def make(self, runtime: Runtime, actor: Actor, token: str = "vs_secret", **columns: object) -> None:
        with runtime.open_ctx(SYSTEM) as ctx:
            assert actor.user_id is not None
            ctx.session.add(
                ApiToken(account_id=actor.user_id, name="script", token_hash=hash_api_token(token), **columns)  # type: ignore[arg-type]
            )

    def test_scopes_bound_the_actor(self, runtime: Runtime, people: People) -> None:
        self.make(runtime, people.curator, scopes=["read", "upload", "of a later version"])
        actor = resolve_actor(runtime, "vs_secret", None)
        assert actor.user_id == people.curator.user_id
        assert actor.scopes == {Scope.READ, Scope.UPLOAD}

    def test_not_as_cookie(self, runtime: Runtime, people: People) -> None:
        self.make(runtime, people.curator, scopes=["read"])
        assert resolve_actor(runtime, None, "vs_secret") is GUEST

    def test_expired(self, runtime: Runtime, people: People) -> None:
        self.make(runtime, people.user, scopes=["read"], expires_at=utcnow() - timedelta(seconds=1))
        with pytest.raises(BadToken):
            resolve_actor(runtime, "vs_secret", None)

    def test_deactivated(self, runtime: Runtime, people: People) -> None:
        self.make(runtime, people.user, scopes=["read"])
        with runtime.open_ctx(SYSTEM) as ctx:
            account = ctx.session.get(Account, people.user.user_id)
            assert account is not None
            account.is_active = False
        with pytest.raises(BadToken):
            resolve_actor(runtime, "vs_secret", None)

    def test_last_use_is_written_at_most_once_a_minute(self, runtime: Runtime, people: People) -> None:
        self.make(runtime, people.user, scopes=["read"])

        def last_used() -> object:
            with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
                return ctx.session.exec(select(ApiToken)).one().last_used_at

        assert last_used() is None
        resolve_actor(runtime, "vs_secret", None)
        first = last_used()
        assert first is not None
        resolve_actor(runtime, "vs_secret", None)
        assert last_used() == first
