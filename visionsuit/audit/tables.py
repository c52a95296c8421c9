"""The audit log's one table. Rows are added, never changed."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from visionsuit.core.clock import utcnow
from visionsuit.db import UtcDateTime


class AuditEntry(SQLModel, table=True):
    """Somebody did something. Names are copied: the entry outlives what it is about.

    `action` is `<what>.<verb in the past>` such as `login.failed`; `target` is a public id or an address.
    """

    __tablename__ = "audit_entry"

    id: int | None = Field(default=None, primary_key=True)
    at: datetime = Field(default_factory=utcnow, sa_type=UtcDateTime, index=True)
    actor_id: int | None = Field(default=None, index=True)
    actor_public_id: str = Field(default="", max_length=32)
    actor_name: str = Field(default="", max_length=160)
    actor_role: str = Field(default="", max_length=16)
    action: str = Field(max_length=60, index=True)
    target: str = Field(default="", max_length=200)
    detail: dict[str, Any] = Field(default_factory=dict, sa_type=sa.JSON)
