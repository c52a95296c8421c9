"""What the tests of accounts share."""

from collections.abc import Callable, Iterator

import bcrypt
import pytest
from sqlmodel import select

from visionsuit.accounts.passwords import _nobodys_hash, hash_password
from visionsuit.accounts.tables import Account
from visionsuit.audit.tables import AuditEntry
from visionsuit.core.actor import SYSTEM, Actor
from visionsuit.runtime import Runtime

PASSWORD = "correct horse battery"
#: Few rounds: the cost is tested where it matters.
CHEAP_HASH = hash_password(PASSWORD, cost=4)


@pytest.fixture
def slow_hashes() -> None:
    """Passwords cost what they cost when served: for what is about that cost, or happens meanwhile."""


@pytest.fixture(autouse=True)
def _quick_hashes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """bcrypt itself, with its fewest rounds: a quarter of a second each would be half of these tests' time."""
    _nobodys_hash.cache_clear()
    if "slow_hashes" not in request.fixturenames:
        gensalt = bcrypt.gensalt
        monkeypatch.setattr(bcrypt, "gensalt", lambda rounds=12, prefix=b"2b": gensalt(4, prefix))
    yield
    _nobodys_hash.cache_clear()


@pytest.fixture
def with_password(runtime: Runtime) -> Callable[[Actor], str]:
    """Gives an account PASSWORD and answers its e-mail address."""

    def give(actor: Actor) -> str:
        with runtime.open_ctx(SYSTEM) as ctx:
            account = ctx.session.get_one(Account, actor.user_id)
            account.password_hash = CHEAP_HASH
            return account.email

    return give


@pytest.fixture
def row_of(runtime: Runtime) -> Callable[[Actor], Account]:
    def read(actor: Actor) -> Account:
        with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
            return ctx.session.get_one(Account, actor.user_id)

    return read


@pytest.fixture
def audit(runtime: Runtime) -> Callable[[], list[AuditEntry]]:
    """All entries so far, oldest first."""

    def read() -> list[AuditEntry]:
        with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
            return list(ctx.session.exec(select(AuditEntry).order_by(AuditEntry.id)))  # type: ignore[arg-type]

    return read
