"""Joining, signing in and out, and one's own profile.

Functions that hash a password take `runtime` and open their own transactions around the hashing: bcrypt needs a
quarter of a second, in which nobody else could write.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.exc import IntegrityError

from visionsuit.accounts.identity import actor_of
from visionsuit.accounts.passwords import check_new_password, hash_password, verify_password
from visionsuit.accounts.profile_fields import clean_bio, clean_email, clean_name, email_key
from visionsuit.accounts.queries import find_by_email
from visionsuit.accounts.roles import check_assignable, keep_one_superadmin, lock_superadmins
from visionsuit.accounts.sessions import Source, end_all_sessions, start_session
from visionsuit.accounts.tables import Account
from visionsuit.accounts.throttle import PER_ACCOUNT, PER_ADDRESS, account_key, address_key, charge, forget, refund
from visionsuit.audit.service import record
from visionsuit.core.actor import GUEST, Actor, Role
from visionsuit.core.clock import utcnow
from visionsuit.core.config import RegistrationPolicy
from visionsuit.core.errors import Conflict, InvalidInput, NotPermitted, NotSignedIn
from visionsuit.core.permissions import Permission, require
from visionsuit.runtime import Ctx, Runtime
from visionsuit.site.live import get_live


class EmailTaken(Conflict):
    code = "email_taken"


class InvalidCredentials(NotSignedIn):
    code = "invalid_credentials"


class WrongPassword(InvalidInput):
    code = "wrong_password"


class RegistrationClosed(NotPermitted):
    code = "registration_closed"


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A session that has just begun: whose, and the token that carries it."""

    account: Account
    token: str


def register(
    runtime: Runtime, email: str, password: str, name: str, source: Source, *, now: datetime | None = None
) -> SignedIn:
    """Make an account of role USER and sign in.

    Raises:
        BadEmail, BadPassword, BadText: what was typed can't be used.
        RegistrationClosed: an administrator closed registration.
        EmailTaken: there is an account with this address.
        TooManyAttempts: too many accounts from one network address.
    """
    email, name = clean_email(email), clean_name(name)
    check_new_password(password)
    with runtime.open_ctx(GUEST) as ctx:
        if get_live(ctx).registration is not RegistrationPolicy.OPEN:
            raise RegistrationClosed("Registration is closed on this site. An administrator can make you an account.")
        charge(ctx, {address_key(source.address, "register"): PER_ADDRESS}, now or utcnow())
        is_taken = find_by_email(ctx.session, email) is not None
    # Outside the block: an attempt that ends here still counts, or addresses could be tried without end.
    if is_taken:
        raise email_taken()
    password_hash = hash_password(password)
    with runtime.open_ctx(GUEST) as ctx:
        account = add_account(ctx, email=email, name=name, password_hash=password_hash, last_login_at=now or utcnow())
        token = start_session(ctx, account, source)
        record(ctx, "account.registered", account.public_id, {"address": source.address}, actor=actor_of(account))
        return SignedIn(account, token)


def log_in(runtime: Runtime, email: str, password: str, source: Source, *, now: datetime | None = None) -> SignedIn:
    """Begin a session.

    The same answer in the same time for a wrong password, an unknown address and a deactivated account.

    Raises:
        InvalidCredentials
        TooManyAttempts: the address or the account is locked for a while; the right password doesn't help then.
    """
    key = email_key(email)
    by_account, by_address = account_key(key), address_key(source.address)
    now = now or utcnow()
    with runtime.open_ctx(GUEST) as ctx:
        charge(ctx, {by_account: PER_ACCOUNT, by_address: PER_ADDRESS}, now)
        account = find_by_email(ctx.session, _storable(key))
        password_hash = account.password_hash if account and account.is_active else None
    is_right = verify_password(password, password_hash)
    with runtime.open_ctx(GUEST) as ctx:
        # Read again: account and password may have changed while the password was checked.
        account = find_by_email(ctx.session, _storable(key)) if is_right else None
        if account is not None and account.is_active and account.password_hash == password_hash:
            forget(ctx, by_account)
            refund(ctx, by_address, PER_ADDRESS)
            account.last_login_at = now
            token = start_session(ctx, account, source)
            record(ctx, "login", account.public_id, {"address": source.address}, actor=actor_of(account))
            return SignedIn(account, token)
        record(ctx, "login.failed", _storable(key), {"address": source.address})
    raise InvalidCredentials("Invalid credentials")


def change_password(
    runtime: Runtime, actor: Actor, current: str, new: str, source: Source, *, now: datetime | None = None
) -> SignedIn:
    """Set another password, end every session of the account, and begin a new one.

    API tokens stay: they are programs' keys, listed and revoked one by one.

    Raises:
        WrongPassword: `current` is not the password.
        BadPassword: `new` can't be one.
        TooManyAttempts
    """
    require(actor, Permission.PROFILE_EDIT)
    check_new_password(new, field="new_password")
    with runtime.open_ctx(actor) as ctx:
        account = own_account(ctx)
        by_account = account_key(account.email)
        charge(ctx, {by_account: PER_ACCOUNT}, now or utcnow())
    if not verify_password(current, account.password_hash):
        with runtime.open_ctx(actor) as ctx:
            record(ctx, "password.refused", account.public_id, {"address": source.address})
        raise WrongPassword("The current password is not right.", field="current_password")
    old_hash, new_hash = account.password_hash, hash_password(new)
    with runtime.open_ctx(actor) as ctx:
        account = own_account(ctx, lock=True)
        if account.password_hash != old_hash:
            raise Conflict("The password was changed from elsewhere a moment ago.")
        account.password_hash = new_hash
        end_all_sessions(ctx, account)
        forget(ctx, by_account)
        record(ctx, "password.changed", account.public_id, {"address": source.address})
        return SignedIn(account, start_session(ctx, account, source))


def update_profile(
    ctx: Ctx, *, name: str | None = None, bio: str | None = None, shows_adult: bool | None = None
) -> Account:
    """Change what is given of one's own name, bio and adult-content switch.

    Raises:
        BadText
    """
    require(ctx.actor, Permission.PROFILE_EDIT)
    account = own_account(ctx)
    if name is not None:
        account.name = clean_name(name)
    if bio is not None:
        account.bio = clean_bio(bio)
    if shows_adult is not None:
        account.shows_adult = shows_adult
    return account


def own_account(ctx: Ctx, *, lock: bool = False) -> Account:
    """The asker's account.

    Raises:
        NotSignedIn: guests, and whoever was deactivated a moment ago.
    """
    account = None
    if ctx.actor.user_id is not None:
        account = ctx.session.get(Account, ctx.actor.user_id, with_for_update=lock or None, populate_existing=lock)
    if account is None or not account.is_active:
        raise NotSignedIn("Sign in to do this.", hint="POST /api/auth/login, or send a bearer token.")
    return account


def add_account(
    ctx: Ctx,
    *,
    email: str,
    name: str,
    password_hash: str,
    role: Role = Role.USER,
    bio: str = "",
    last_login_at: datetime | None = None,
) -> Account:
    """Write a new account's row; all values are clean already.

    Raises:
        EmailTaken: also when the other account came a moment ago from another thread or process.
    """
    account = Account(
        email=email, name=name, bio=bio, role=role, password_hash=password_hash, last_login_at=last_login_at
    )
    try:
        with ctx.session.begin_nested():
            ctx.session.add(account)
    except IntegrityError as error:
        raise email_taken() from error
    return account


def upsert_admin(
    ctx: Ctx, email: str, password: str, name: str = "", bio: str = "", role: Role = Role.SUPERADMIN
) -> Account:
    """Make the account or give the existing one this password and role, and activate it. For the command line.

    An empty `name` or `bio` leaves what is there. Ends the account's sessions.

    Raises:
        BadEmail, BadPassword, BadText, BadRole
        LastSuperadmin: `role` is lower and nobody else is SUPERADMIN.
    """
    check_assignable(role)
    email = clean_email(email)
    check_new_password(password)
    password_hash = hash_password(password)
    lock_superadmins(ctx)
    account = find_by_email(ctx.session, email)
    if account is None:
        name = clean_name(name or "Administrator")
        account = add_account(ctx, email=email, name=name, bio=clean_bio(bio), role=role, password_hash=password_hash)
    else:
        account.name = clean_name(name) if name else account.name
        account.bio = clean_bio(bio) if bio else account.bio
        if role is not Role.SUPERADMIN:
            keep_one_superadmin(ctx, account)
        account.role = role
        account.is_active = True
        account.password_hash = password_hash
        end_all_sessions(ctx, account)
    record(ctx, "admin.upserted", account.public_id, {"email": email, "role": role.value})
    return account


def email_taken() -> EmailTaken:
    return EmailTaken("Email already exists", field="email", hint="Sign in, or use another address.")


def _storable(text: str) -> str:
    """Text as any database takes it: no NUL, no halves of characters."""
    return text.replace("\0", "").encode(errors="replace").decode()[:200]
