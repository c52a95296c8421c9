"""Live settings, public numbers, status and health."""

from typing import Annotated, Any

from fastapi import Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from visionsuit.core.config import GeneratorAccess, RegistrationPolicy
from visionsuit.core.permissions import Permission, require
from visionsuit.router import CtxDep, ReadCtxDep, Router
from visionsuit.site import live
from visionsuit.site.live import LiveSettings, SiteTitle
from visionsuit.site.stats import StatsCache
from visionsuit.site.status import PartStatus, SiteStatus, StatusCache
from visionsuit.web import FromRequest, RuntimeDep

router = Router(tags=["site"])


class SettingsPatchIn(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"registration": "closed"}]})

    site_title: SiteTitle | None = None
    registration: RegistrationPolicy | None = None
    generator_access: GeneratorAccess | None = None
    auto_test_sheets: bool | None = None


class StatsOut(BaseModel):
    models: int
    images: int
    galleries: int
    generations: int
    members: int


class HealthOut(BaseModel):
    status: str = Field("ok", examples=["ok"])


class ReadyOut(BaseModel):
    database: PartStatus
    storage: PartStatus
    engine: PartStatus


def get_stats_cache(request: Request) -> StatsCache:
    return _kept(request, "site_stats", StatsCache)


def get_status_cache(request: Request) -> StatusCache:
    return _kept(request, "site_status", StatusCache)


def _kept(request: Request, name: str, make: type[Any]) -> Any:
    """One object for as long as the application lives."""
    state = request.app.state
    if not hasattr(state, name):
        setattr(state, name, make())
    return getattr(state, name)


StatsCacheDep = Annotated[StatsCache, Depends(FromRequest(get_stats_cache))]
StatusCacheDep = Annotated[StatusCache, Depends(FromRequest(get_status_cache))]


@router.get("/api/settings", summary="Live settings")
def show_settings(ctx: ReadCtxDep) -> LiveSettings:
    require(ctx.actor, Permission.SETTINGS_MANAGE)
    return live.get_live(ctx)


@router.patch("/api/settings", summary="Change live settings")
def change_settings(ctx: CtxDep, body: SettingsPatchIn) -> LiveSettings:
    """Takes effect at once; what was before is in the audit log."""
    return live.change_settings(ctx, body.model_dump(exclude_none=True))


@router.get("/api/meta/stats", summary="Public numbers of the site")
def show_stats(ctx: ReadCtxDep, cache: StatsCacheDep) -> StatsOut:
    """A few seconds old at most."""
    return StatsOut(**cache.read(ctx))


@router.get("/api/meta/status", summary="State of the site's parts")
def show_status(runtime: RuntimeDep, cache: StatusCacheDep) -> SiteStatus:
    return cache.read(runtime)


@router.get("/health", summary="The process is alive")
def show_health() -> HealthOut:
    return HealthOut(status="ok")


@router.get("/health/ready", summary="The process can serve", responses={503: {"model": ReadyOut}})
def show_ready(runtime: RuntimeDep, response: Response, cache: StatusCacheDep) -> ReadyOut:
    """503 while database, storage or engine is down."""
    status = cache.read(runtime)
    if not status.is_ready:
        response.status_code = 503
    return ReadyOut(database=status.database, storage=status.storage, engine=status.engine)
