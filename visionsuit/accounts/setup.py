"""The first administrator: from the environment, by a one-time link, or from the command line."""

import hashlib
import hmac
import secrets

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import IntegrityError
from sqlmodel import col

from visionsuit.accounts.identity import actor_of
from visionsuit.accounts.passwords import check_new_password, hash_password
from visionsuit.accounts.profile_fields import clean_email, clean_name
from visionsuit.accounts.roles import has_superadmin
from visionsuit.accounts.service import EmailTaken, SignedIn, add_account, upsert_admin
from visionsuit.accounts.sessions import Source, start_session
from visionsuit.accounts.tables import SetupInvitation
from visionsuit.audit.service import record
from visionsuit.core.actor import GUEST, SYSTEM, Role
from visionsuit.core.errors import NotPermitted
from visionsuit.runtime import Ctx, Runtime

log = structlog.get_logger()


class BadSetupLink(NotPermitted):
    code = "bad_setup_link"


def prepare_first_admin(runtime: Runtime) -> str | None:
    """At start: see that somebody can administrate.

    Where no SUPERADMIN exists, the environment's administrator is made; with none there, the answer is the path of
    a one-time setup link to print (`/setup?token=...`), the same one at every start until it is used. Where a
    SUPERADMIN exists, nothing happens, whatever the environment says. Safe in several processes at once.

    Raises:
        BadEmail, BadPassword: the environment's administrator can't be made so.
    """
    with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
        if has_superadmin(ctx):
            return None
    settings = runtime.settings
    if settings.admin_email and settings.admin_password:
        try:
            with runtime.open_ctx(SYSTEM) as ctx:
                if not has_superadmin(ctx):
                    upsert_admin(ctx, settings.admin_email, settings.admin_password.get_secret_value())
                    ctx.session.execute(sa.delete(SetupInvitation))
        except EmailTaken:
            log.info("first_admin_made_elsewhere")  # by another process that starts now
        return None
    try:
        with runtime.open_ctx(SYSTEM) as ctx:
            invitation = ctx.session.get(SetupInvitation, 1)
            if invitation is None:
                invitation = SetupInvitation(nonce=secrets.token_hex(16))
                ctx.session.add(invitation)
    except IntegrityError:  # another process that starts now was first
        with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
            invitation = ctx.session.get_one(SetupInvitation, 1)
    return f"/setup?token={_setup_token(runtime, invitation)}"


def accept_setup(runtime: Runtime, token: str, email: str, password: str, name: str, source: Source) -> SignedIn:
    """Make the first SUPERADMIN with the setup link's token, which is used up by that, and sign in.

    Raises:
        BadSetupLink: not the token, or used already.
        EmailTaken, BadEmail, BadPassword, BadText: the link stays good.
    """
    with runtime.open_ctx(GUEST, read_only=True) as ctx:
        _check_token(ctx, token)
    email, name = clean_email(email), clean_name(name)
    check_new_password(password)
    password_hash = hash_password(password)
    with runtime.open_ctx(GUEST) as ctx:
        _check_token(ctx, token)
        # Whoever deletes the row is the one; a second request waits here for the first and then finds none.
        used = ctx.session.execute(sa.delete(SetupInvitation).where(col(SetupInvitation.id) == 1))
        if getattr(used, "rowcount", 0) != 1:
            raise _bad_link()
        account = add_account(ctx, email=email, name=name, password_hash=password_hash, role=Role.SUPERADMIN)
        record(ctx, "setup.used", account.public_id, {"address": source.address}, actor=actor_of(account))
        return SignedIn(account, start_session(ctx, account, source))


def _setup_token(runtime: Runtime, invitation: SetupInvitation) -> str:
    return hmac.new(runtime.secret, f"setup:{invitation.nonce}".encode(), hashlib.sha256).hexdigest()


def _check_token(ctx: Ctx, token: str) -> None:
    invitation = ctx.session.get(SetupInvitation, 1)
    if invitation is None or has_superadmin(ctx):
        raise _bad_link()
    if not hmac.compare_digest(_setup_token(ctx.runtime, invitation).encode(), token.encode(errors="replace")):
        raise _bad_link()


def _bad_link() -> BadSetupLink:
    return BadSetupLink("This setup link is not valid or was used already.", hint="visionsuit create-admin")
