"""/api/auth and /api/meta/session: joining, signing in and out, API tokens, sessions."""

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request, Response

from visionsuit.accounts import service, setup, tokens
from visionsuit.accounts.identity import actor_of
from visionsuit.accounts.queries import count_members, list_sessions, list_tokens
from visionsuit.accounts.schemas import (
    LoginIn,
    MetaSessionOut,
    NewTokenOut,
    RegisterIn,
    SessionListOut,
    SetupIn,
    SignedInOut,
    TokenIn,
    TokenListOut,
    UserOut,
    session_out,
    token_out,
    user_out,
)
from visionsuit.accounts.sessions import Source, end_other_sessions, end_own_session, end_session, read_token
from visionsuit.core.permissions import Permission, require
from visionsuit.router import CtxDep, ReadCtxDep, Router
from visionsuit.site.live import get_live, may_generate
from visionsuit.site.stats import register_counter
from visionsuit.web import SESSION_COOKIE, FromRequest, RuntimeDep, get_runtime

router = Router(tags=["accounts"])
register_counter("members", count_members)


def get_source(request: Request) -> Source:
    return Source(request.state.address, request.headers.get("user-agent", ""))


def get_session_token(request: Request) -> str | None:
    """The token that this request came with: bearer, else cookie."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else request.cookies.get(SESSION_COOKIE)


SourceDep = Annotated[Source, Depends(FromRequest(get_source))]
SessionTokenDep = Annotated[str | None, Depends(FromRequest(get_session_token))]


def signed_in_out(request: Request, response: Response, signed_in: service.SignedIn) -> SignedInOut:
    """The answer to a login, with the cookie for browsers."""
    runtime = get_runtime(request)
    response.set_cookie(
        SESSION_COOKIE,
        signed_in.token,
        max_age=runtime.settings.session_days * 86400,
        path="/",
        httponly=True,
        samesite="lax",
        secure=is_https(request),
    )
    account = signed_in.account
    return SignedInOut(user=user_out(account, actor_of(account)), token=signed_in.token)


def is_https(request: Request) -> bool:
    """Whether the browser sees https: here, or at the proxy that `public_url` names and this request came through."""
    public = urlsplit(get_runtime(request).settings.public_url or "")
    return request.url.scheme == "https" or (public.scheme == "https" and request.url.netloc == public.netloc)


@router.post("/api/auth/register", status_code=201, summary="Join")
def register(
    request: Request, response: Response, runtime: RuntimeDep, source: SourceDep, body: RegisterIn
) -> SignedInOut:
    """Makes an account of role USER and signs in. 409 `email_taken` if the address has one, 403 `registration_closed`
    where an administrator closed registration."""
    return signed_in_out(request, response, service.register(runtime, body.email, body.password, body.name, source))


@router.post("/api/auth/login", summary="Sign in")
def log_in(request: Request, response: Response, runtime: RuntimeDep, source: SourceDep, body: LoginIn) -> SignedInOut:
    """Answers a token that is good for 7 days and sets it as a cookie. 401 `invalid_credentials` whatever is wrong;
    429 after several wrong ones, with a delay that grows."""
    return signed_in_out(request, response, service.log_in(runtime, body.email, body.password, source))


@router.post("/api/auth/setup", status_code=201, summary="Make the first administrator")
def set_up(request: Request, response: Response, runtime: RuntimeDep, source: SourceDep, body: SetupIn) -> SignedInOut:
    """Uses up the one-time link that the server printed at its first start."""
    signed_in = setup.accept_setup(runtime, body.token, body.email, body.password, body.name, source)
    return signed_in_out(request, response, signed_in)


@router.get("/api/auth/me", summary="Who am I")
def show_me(ctx: ReadCtxDep) -> UserOut:
    return user_out(service.own_account(ctx), ctx.actor)


@router.post("/api/auth/logout", status_code=204, summary="Sign out")
def log_out(ctx: CtxDep, response: Response, token: SessionTokenDep) -> None:
    """Ends this session at once and clears the cookie; no error for guests."""
    if token:
        end_session(ctx, token)
    response.delete_cookie(SESSION_COOKIE, path="/", httponly=True, samesite="lax")


@router.get("/api/auth/sessions", summary="My sessions")
def list_my_sessions(ctx: ReadCtxDep, token: SessionTokenDep) -> SessionListOut:
    require(ctx.actor, Permission.TOKENS_MANAGE)
    claims = read_token(ctx.runtime, token or "")
    current_id = claims.session_id if claims else None
    return SessionListOut(items=[session_out(row, current_id) for row in list_sessions(ctx)])


@router.delete("/api/auth/sessions", status_code=204, summary="Sign out everywhere else")
def end_my_other_sessions(ctx: CtxDep, token: SessionTokenDep) -> None:
    claims = read_token(ctx.runtime, token or "")
    end_other_sessions(ctx, claims.session_id if claims else None)


@router.delete("/api/auth/sessions/{id}", status_code=204, summary="End one of my sessions")
def end_my_session(ctx: CtxDep, id: str) -> None:
    end_own_session(ctx, id)


@router.get("/api/auth/tokens", summary="My API tokens")
def list_my_tokens(ctx: ReadCtxDep) -> TokenListOut:
    require(ctx.actor, Permission.TOKENS_MANAGE)
    return TokenListOut(items=[token_out(row) for row in list_tokens(ctx)])


@router.post("/api/auth/tokens", status_code=201, summary="Make an API token")
def create_my_token(ctx: CtxDep, body: TokenIn) -> NewTokenOut:
    """The token is in this answer and nowhere else."""
    row, token = tokens.create_token(ctx, body.name, body.scopes, body.expires_in_days)
    return NewTokenOut(**token_out(row).model_dump(), token=token)


@router.delete("/api/auth/tokens/{id}", status_code=204, summary="Revoke an API token")
def revoke_my_token(ctx: CtxDep, id: str) -> None:
    tokens.revoke_token(ctx, id)


@router.get("/api/meta/session", tags=["site"], summary="All a page needs to know first")
def show_session(ctx: ReadCtxDep) -> MetaSessionOut:
    """For guests too: who is signed in, what the site is called, what is allowed, and the limits."""
    live = get_live(ctx)
    return MetaSessionOut(
        user=None if ctx.actor.is_guest else user_out(service.own_account(ctx), ctx.actor),
        site_title=live.site_title,
        registration=live.registration,
        generator_access=live.generator_access,
        may_generate=may_generate(ctx),
        limits=ctx.settings.limits,
    )
