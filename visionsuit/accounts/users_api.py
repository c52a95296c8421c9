"""/api/users: one's own profile, everybody's public profile, and administrators' view."""

from typing import Annotated

from fastapi import Query, Request, Response

from visionsuit.accounts import members, service
from visionsuit.accounts.api import SourceDep, signed_in_out
from visionsuit.accounts.queries import get_account
from visionsuit.accounts.schemas import (
    MemberIn,
    MemberListOut,
    MemberOut,
    MemberPatchIn,
    PasswordIn,
    ProfileIn,
    ProfileOut,
    SignedInOut,
    UserOut,
    member_out,
    profile_out,
    user_out,
)
from visionsuit.core.actor import Role
from visionsuit.core.paging import DEFAULT_LIMIT, MAX_LIMIT
from visionsuit.router import CtxDep, ReadCtxDep, Router
from visionsuit.web import ActorDep, RuntimeDep

router = Router(prefix="/api/users", tags=["users"])


@router.patch("/me", summary="Change my profile")
def update_me(ctx: CtxDep, body: ProfileIn) -> UserOut:
    """Fields that are left out stay as they are."""
    account = service.update_profile(ctx, name=body.name, bio=body.bio, shows_adult=body.shows_adult)
    return user_out(account, ctx.actor)


@router.put("/me/password", summary="Change my password")
def change_my_password(
    request: Request, response: Response, runtime: RuntimeDep, actor: ActorDep, source: SourceDep, body: PasswordIn
) -> SignedInOut:
    """Ends every session of the account and begins a new one, whose token is in the answer and the cookie."""
    signed_in = service.change_password(runtime, actor, body.current_password, body.new_password, source)
    return signed_in_out(request, response, signed_in)


@router.get("", summary="Members, for administrators")
def list_users(
    ctx: ReadCtxDep,
    q: Annotated[str, Query(max_length=200, description="Part of a name or e-mail address")] = "",
    role: Role | None = None,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
) -> MemberListOut:
    page = members.list_members(ctx, text=q, role=role, cursor=cursor, limit=limit)
    return MemberListOut(items=[member_out(account) for account in page.items], next_cursor=page.next_cursor)


@router.post("", status_code=201, summary="Make an account for somebody")
def create_user(runtime: RuntimeDep, actor: ActorDep, body: MemberIn) -> MemberOut:
    account = members.create_member(
        runtime, actor, email=body.email, password=body.password, name=body.name, role=body.role, bio=body.bio
    )
    return member_out(account)


@router.get("/{id}", summary="A member's public profile")
def show_user(ctx: ReadCtxDep, id: str) -> ProfileOut:
    return profile_out(get_account(ctx, id))


@router.patch("/{id}", summary="Change a member's role, state or profile")
def change_user(runtime: RuntimeDep, actor: ActorDep, id: str, body: MemberPatchIn) -> MemberOut:
    """Administrators look after USER and CURATOR accounts, a SUPERADMIN after all. A new role, password or a
    deactivation ends the member's sessions at once."""
    changes = members.MemberChanges(
        role=body.role, is_active=body.is_active, name=body.name, bio=body.bio, password=body.password
    )
    return member_out(members.change_member(runtime, actor, id, changes))
