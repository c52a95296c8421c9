"""Settings that an administrator changes at run time: one row for each that differs from the environment's."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from visionsuit.core.clock import utcnow
from visionsuit.db import UtcDateTime


class SettingRow(SQLModel, table=True):
    """`value` is JSON. Who changed it before is in the audit log."""

    __tablename__ = "site_setting"

    key: str = Field(primary_key=True, max_length=60)
    value: Any = Field(sa_type=sa.JSON)
    changed_at: datetime = Field(default_factory=utcnow, sa_type=UtcDateTime)
    changed_by: int | None = None
