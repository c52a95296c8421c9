"""Live settings: what is in force now, and changing it."""

from collections.abc import Callable
from typing import Annotated, Any

import sqlalchemy as sa
import structlog
from pydantic import AfterValidator, BaseModel, Field, StringConstraints, ValidationError

from visionsuit.audit.service import record
from visionsuit.core.actor import Actor, Role
from visionsuit.core.clock import utcnow
from visionsuit.core.config import GeneratorAccess, RegistrationPolicy, Settings
from visionsuit.core.errors import NotPermitted
from visionsuit.core.permissions import Permission, may, require
from visionsuit.core.text import clean_line
from visionsuit.runtime import Ctx
from visionsuit.site.tables import SettingRow

log = structlog.get_logger()


SiteTitle = Annotated[str, AfterValidator(clean_line), StringConstraints(min_length=1, max_length=80)]


class LiveSettings(BaseModel):
    """Everything that takes effect at once. One that is not set has the environment's value."""

    site_title: SiteTitle = Field(description="Name shown in the browser.", examples=["VisionSuit"])
    registration: RegistrationPolicy = Field(description="Self-registration: `open` or `closed`.")
    generator_access: GeneratorAccess = Field(
        description="Who may render: `admins`, `curators`, `members`, or `open`. Rendering needs an account, so "
        "`open` lets in the same people as `members`."
    )
    auto_test_sheets: bool = Field(
        description="Whether every new LoRA gets a test sheet on its page, rendered when nobody waits."
    )


#: Setting -> its value from the environment.
DEFAULTS: dict[str, Callable[[Settings], Any]] = {
    "site_title": lambda settings: clean_line(settings.site_title)[:80].strip() or "VisionSuit",
    "registration": lambda settings: settings.registration,
    "generator_access": lambda settings: settings.generator_access,
    "auto_test_sheets": lambda settings: settings.auto_test_sheets,
}

_LOWEST_RENDERER = {
    GeneratorAccess.ADMINS: Role.ADMIN,
    GeneratorAccess.CURATORS: Role.CURATOR,
    GeneratorAccess.MEMBERS: Role.USER,
    GeneratorAccess.OPEN: Role.USER,
}


_rows: sa.Table = SettingRow.__table__  # type: ignore[attr-defined]
_ALL = sa.select(_rows.c.key, _rows.c.value)


class GeneratorClosed(NotPermitted):
    code = "generator_closed"


def get_live(ctx: Ctx) -> LiveSettings:
    """All live settings in one query."""
    defaults = {key: default(ctx.settings) for key, default in DEFAULTS.items()}
    values = {**defaults, **{row.key: row.value for row in ctx.connection.execute(_ALL)}}
    try:
        return LiveSettings.model_validate(values)
    except ValidationError as error:
        # A row that another version wrote must not take the site down.
        unknown = {str(problem["loc"][0]) for problem in error.errors()}
        log.warning("live_setting_ignored", settings=sorted(unknown))
        return LiveSettings.model_validate({**values, **{key: defaults[key] for key in unknown}})


def get_setting(ctx: Ctx, name: str) -> Any:
    """One live setting, typed as in LiveSettings."""
    return getattr(get_live(ctx), name)


def change_settings(ctx: Ctx, changes: dict[str, Any]) -> LiveSettings:
    """Set what `changes` names (validated values of LiveSettings) and write down what it was before.

    Raises:
        NotPermitted: the asker is no administrator.
    """
    require(ctx.actor, Permission.SETTINGS_MANAGE)
    before = get_live(ctx)
    after = LiveSettings.model_validate({**before.model_dump(), **changes})
    old, new = before.model_dump(mode="json"), after.model_dump(mode="json")
    changed = {key: new[key] for key in changes if old[key] != new[key]}
    for key, value in changed.items():
        # merge: two administrators may set the same for the first time at once.
        ctx.session.merge(SettingRow(key=key, value=value, changed_at=utcnow(), changed_by=ctx.actor.user_id))
    ctx.flush()
    if changed:
        detail = {key: {"from": old[key], "to": value} for key, value in changed.items()}
        record(ctx, "settings.changed", ", ".join(changed), detail)
    return after


def may_generate(ctx: Ctx, actor: Actor | None = None) -> bool:
    """Whether the asker (or `actor`) may render now, by role and by the generator's access setting."""
    who = actor or ctx.actor
    if not may(who, Permission.GENERATIONS_CREATE):
        return False
    return who.role.rank >= _LOWEST_RENDERER[get_live(ctx).generator_access].rank


def require_may_generate(ctx: Ctx) -> None:
    """Raise unless the asker may render now.

    Raises:
        NotSignedIn: guests.
        NotPermitted: the token in use lacks the scope.
        GeneratorClosed: the generator is open to higher roles only.
    """
    require(ctx.actor, Permission.GENERATIONS_CREATE)
    if not may_generate(ctx):
        access = get_live(ctx).generator_access
        raise GeneratorClosed(f"The generator is open to {access.value} only at the moment.")
