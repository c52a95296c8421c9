"""First tables and the search index."""

import sqlalchemy as sa
from alembic import op

import visionsuit.db
from visionsuit.search.tables import create_index_sql, drop_index_sql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "account",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("public_id", sa.String(length=32), nullable=False),
        sa.Column("email", sa.String(length=320), nullable=False),
        sa.Column("name", sa.String(length=160), nullable=False),
        sa.Column("bio", sa.String(length=600), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("password_hash", sa.String(), nullable=False),
        sa.Column("token_version", sa.Integer(), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("shows_adult", sa.Boolean(), nullable=False),
        sa.Column("avatar_object_id", sa.String(), nullable=True),
        sa.Column("created_at", visionsuit.db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("last_login_at", visionsuit.db.UtcDateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_account")),
        sa.UniqueConstraint("email", name=op.f("uq_account_email")),
        sa.UniqueConstraint("public_id", name=op.f("uq_account_public_id")),
    )
    op.create_table(
        "audit_entry",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", visionsuit.db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("actor_id", sa.Integer(), nullable=True),
        sa.Column("actor_public_id", sa.String(length=32), nullable=False),
        sa.Column("actor_name", sa.String(length=160), nullable=False),
        sa.Column("actor_role", sa.String(length=16), nullable=False),
        sa.Column("action", sa.String(length=60), nullable=False),
        sa.Column("target", sa.String(length=200), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_entry")),
    )
    with op.batch_alter_table("audit_entry", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_audit_entry_action"), ["action"], unique=False)
        batch_op.create_index(batch_op.f("ix_audit_entry_actor_id"), ["actor_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_audit_entry_at"), ["at"], unique=False)

    op.create_table(
        "base_model",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("public_id", sa.String(length=32), nullable=False),
        sa.Column("folder", sa.String(length=255), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("label", sa.String(length=180), nullable=False),
        sa.Column("family", sa.String(length=16), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("default", sa.JSON(), nullable=False),
        sa.Column("sizes", sa.JSON(), nullable=False),
        sa.Column("min_size", sa.Integer(), nullable=False),
        sa.Column("max_size", sa.Integer(), nullable=False),
        sa.Column("size_step", sa.Integer(), nullable=False),
        sa.Column("prompt_tokens", sa.Integer(), nullable=False),
        sa.Column("suggestions", sa.JSON(), nullable=False),
        sa.Column("allowed_roles", sa.JSON(), nullable=False),
        sa.Column("is_enabled", sa.Boolean(), nullable=False),
        sa.Column("is_default", sa.Boolean(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("trouble", sa.String(), nullable=True),
        sa.Column("created_at", visionsuit.db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("updated_at", visionsuit.db.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_base_model")),
        sa.UniqueConstraint("folder", name=op.f("uq_base_model_folder")),
        sa.UniqueConstraint("public_id", name=op.f("uq_base_model_public_id")),
    )
    op.create_table(
        "login_attempts",
        sa.Column("key", sa.String(length=80), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("last_at", visionsuit.db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("locked_until", visionsuit.db.UtcDateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_login_attempts")),
    )
    with op.batch_alter_table("login_attempts", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_login_attempts_last_at"), ["last_at"], unique=False)

    op.create_table(
        "pace",
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("seconds_per_unit", sa.Float(), nullable=False),
        sa.Column("overhead_s", sa.Float(), nullable=False),
        sa.Column("samples", sa.Integer(), nullable=False),
        sa.Column("updated_at", visionsuit.db.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", "size", name=op.f("pk_pace")),
    )
    op.create_table(
        "queue_state",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("is_paused", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_queue_state")),
    )
    op.create_table(
        "setup_invitation",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("nonce", sa.String(length=64), nullable=False),
        sa.Column("created_at", visionsuit.db.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_setup_invitation")),
    )
    op.create_table(
        "site_setting",
        sa.Column("key", sa.String(length=60), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.Column("changed_at", visionsuit.db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("changed_by", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_site_setting")),
    )
    op.create_table(
        "tag_count",
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("key", sa.String(length=240), nullable=False),
        sa.Column("name", sa.String(length=60), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "key", name=op.f("pk_tag_count")),
    )
    with op.batch_alter_table("tag_count", schema=None) as batch_op:
        batch_op.create_index("ix_tag_count_order", ["kind", "count"], unique=False)

    op.create_table(
        "worker_presence",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("queue", sa.String(length=32), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("engine", sa.JSON(), nullable=False),
        sa.Column("started_at", visionsuit.db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("heartbeat_at", visionsuit.db.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_worker_presence")),
    )
    op.create_table(
        "account_session",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("user_agent", sa.String(length=300), nullable=False),
        sa.Column("created_at", visionsuit.db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("last_seen_at", visionsuit.db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("expires_at", visionsuit.db.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["account.id"], name=op.f("fk_account_session_account_id_account"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_account_session")),
    )
    with op.batch_alter_table("account_session", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_account_session_account_id"), ["account_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_account_session_expires_at"), ["expires_at"], unique=False)

    op.create_table(
        "api_token",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("public_id", sa.String(length=32), nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_at", visionsuit.db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("expires_at", visionsuit.db.UtcDateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", visionsuit.db.UtcDateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["account_id"], ["account.id"], name=op.f("fk_api_token_account_id_account"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_token")),
        sa.UniqueConstraint("public_id", name=op.f("uq_api_token_public_id")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_api_token_token_hash")),
    )
    with op.batch_alter_table("api_token", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_api_token_account_id"), ["account_id"], unique=False)

    op.create_table(
        "image",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("public_id", sa.String(length=32), nullable=False),
        sa.Column("owner_id", sa.Integer(), nullable=False),
        sa.Column("title", sa.String(length=180), nullable=False),
        sa.Column("description", sa.String(length=1500), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("visibility", sa.String(length=16), nullable=False),
        sa.Column("is_adult", sa.Boolean(), nullable=False),
        sa.Column("is_reported", sa.Boolean(), nullable=False),
        sa.Column("created_at", visionsuit.db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("updated_at", visionsuit.db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("object_id", sa.String(length=64), nullable=False),
        sa.Column("file_name", sa.String(length=255), nullable=False),
        sa.Column("mime", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("thumb_small_id", sa.String(length=64), nullable=True),
        sa.Column("thumb_large_id", sa.String(length=64), nullable=True),
        sa.Column("placeholder", sa.Text(), nullable=True),
        sa.Column("dhash", sa.String(length=16), nullable=True),
        sa.Column("recipe", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("generation_id", sa.String(length=32), nullable=True),
        sa.ForeignKeyConstraint(["owner_id"], ["account.id"], name=op.f("fk_image_owner_id_account")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_image")),
        sa.UniqueConstraint("object_id", name=op.f("uq_image_object_id")),
        sa.UniqueConstraint("public_id", name=op.f("uq_image_public_id")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("image", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_image_generation_id"), ["generation_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_image_owner_id"), ["owner_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_image_sha256"), ["sha256"], unique=False)
        batch_op.create_index(batch_op.f("ix_image_thumb_large_id"), ["thumb_large_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_image_thumb_small_id"), ["thumb_small_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_image_visibility"), ["visibility"], unique=False)

    op.create_table(
        "job",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("public_id", sa.String(length=32), nullable=False),
        sa.Column("queue", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("owner_id", sa.Integer(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("run_after", visionsuit.db.UtcDateTime(timezone=True), nullable=True),
        sa.Column("phase", sa.String(length=32), nullable=True),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("steps", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("claim_token", sa.String(length=32), nullable=True),
        sa.Column("claimed_by", sa.String(length=64), nullable=True),
        sa.Column("claimed_at", visionsuit.db.UtcDateTime(timezone=True), nullable=True),
        sa.Column("heartbeat_at", visionsuit.db.UtcDateTime(timezone=True), nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("error_code", sa.String(length=64), nullable=True),
        sa.Column("error_message", sa.String(), nullable=True),
        sa.Column("error_trace", sa.String(), nullable=True),
        sa.Column("pace_key", sa.String(length=200), nullable=False),
        sa.Column("pace_size", sa.Integer(), nullable=False),
        sa.Column("units", sa.Integer(), nullable=False),
        sa.Column("affinity", sa.String(length=200), nullable=False),
        sa.Column("charged_s", sa.Float(), nullable=False),
        sa.Column("device_seconds", sa.Float(), nullable=False),
        sa.Column("created_at", visionsuit.db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("started_at", visionsuit.db.UtcDateTime(timezone=True), nullable=True),
        sa.Column("finished_at", visionsuit.db.UtcDateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["owner_id"], ["account.id"], name=op.f("fk_job_owner_id_account")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job")),
        sa.UniqueConstraint("public_id", name=op.f("uq_job_public_id")),
    )
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_job_claimed_by"), ["claimed_by"], unique=False)
        batch_op.create_index(batch_op.f("ix_job_owner_id"), ["owner_id"], unique=False)
        batch_op.create_index("ix_job_waiting", ["queue", "state", "owner_id"], unique=False)

    op.create_table(
        "model_card",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("public_id", sa.String(length=32), nullable=False),
        sa.Column("owner_id", sa.Integer(), nullable=False),
        sa.Column("title", sa.String(length=180), nullable=False),
        sa.Column("description", sa.String(length=1500), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("visibility", sa.String(length=16), nullable=False),
        sa.Column("is_adult", sa.Boolean(), nullable=False),
        sa.Column("is_reported", sa.Boolean(), nullable=False),
        sa.Column("created_at", visionsuit.db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("updated_at", visionsuit.db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("type", sa.String(length=32), nullable=False),
        sa.Column("base_model", sa.String(length=80), nullable=True),
        sa.Column("family", sa.String(length=32), nullable=True),
        sa.Column("trigger", sa.String(length=180), nullable=False),
        sa.Column("cover_object_id", sa.String(length=64), nullable=True),
        sa.Column("cover_small_id", sa.String(length=64), nullable=True),
        sa.Column("cover_large_id", sa.String(length=64), nullable=True),
        sa.Column("cover_placeholder", sa.Text(), nullable=True),
        sa.Column("cover_width", sa.Integer(), nullable=True),
        sa.Column("cover_height", sa.Integer(), nullable=True),
        sa.Column("downloads", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["owner_id"], ["account.id"], name=op.f("fk_model_card_owner_id_account")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_card")),
        sa.UniqueConstraint("public_id", name=op.f("uq_model_card_public_id")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("model_card", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_model_card_cover_large_id"), ["cover_large_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_model_card_cover_object_id"), ["cover_object_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_model_card_cover_small_id"), ["cover_small_id"], unique=False)
        batch_op.create_index("ix_model_card_downloads", ["downloads", "id"], unique=False)
        batch_op.create_index(batch_op.f("ix_model_card_owner_id"), ["owner_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_model_card_visibility"), ["visibility"], unique=False)

    op.create_table(
        "owner_share",
        sa.Column("owner_id", sa.Integer(), nullable=False),
        sa.Column("used_s", sa.Float(), nullable=False),
        sa.Column("used_at", visionsuit.db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("served_at", visionsuit.db.UtcDateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["owner_id"], ["account.id"], name=op.f("fk_owner_share_owner_id_account")),
        sa.PrimaryKeyConstraint("owner_id", name=op.f("pk_owner_share")),
    )
    op.create_table(
        "storage_object",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("bucket", sa.String(length=16), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("mime", sa.String(length=100), nullable=False),
        sa.Column("file_name", sa.String(length=255), nullable=False),
        sa.Column("owner_id", sa.Integer(), nullable=True),
        sa.Column("subject_kind", sa.String(length=16), nullable=False),
        sa.Column("subject_id", sa.String(length=64), nullable=False),
        sa.Column("created_at", visionsuit.db.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["account.id"], name=op.f("fk_storage_object_owner_id_account"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_storage_object")),
    )
    with op.batch_alter_table("storage_object", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_storage_object_owner_id"), ["owner_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_storage_object_sha256"), ["sha256"], unique=False)
        batch_op.create_index("ix_storage_object_subject", ["subject_kind", "subject_id"], unique=False)

    op.create_table(
        "upload_draft",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("public_id", sa.String(length=32), nullable=False),
        sa.Column("owner_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("is_direct", sa.Boolean(), nullable=False),
        sa.Column("is_closed", sa.Boolean(), nullable=False),
        sa.Column("created_at", visionsuit.db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("touched_at", visionsuit.db.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["account.id"], name=op.f("fk_upload_draft_owner_id_account"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_upload_draft")),
        sa.UniqueConstraint("public_id", name=op.f("uq_upload_draft_public_id")),
    )
    with op.batch_alter_table("upload_draft", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_upload_draft_owner_id"), ["owner_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_upload_draft_touched_at"), ["touched_at"], unique=False)

    op.create_table(
        "gallery",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("public_id", sa.String(length=32), nullable=False),
        sa.Column("owner_id", sa.Integer(), nullable=False),
        sa.Column("title", sa.String(length=180), nullable=False),
        sa.Column("description", sa.String(length=1500), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("visibility", sa.String(length=16), nullable=False),
        sa.Column("is_adult", sa.Boolean(), nullable=False),
        sa.Column("is_reported", sa.Boolean(), nullable=False),
        sa.Column("created_at", visionsuit.db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("updated_at", visionsuit.db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("cover_image_id", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["cover_image_id"], ["image.id"], name=op.f("fk_gallery_cover_image_id_image"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(["owner_id"], ["account.id"], name=op.f("fk_gallery_owner_id_account")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gallery")),
        sa.UniqueConstraint("public_id", name=op.f("uq_gallery_public_id")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("gallery", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_gallery_owner_id"), ["owner_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_gallery_visibility"), ["visibility"], unique=False)

    op.create_table(
        "generation",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("public_id", sa.String(length=32), nullable=False),
        sa.Column("owner_id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("base_model_id", sa.Integer(), nullable=True),
        sa.Column("request", sa.JSON(), nullable=False),
        sa.Column("created_at", visionsuit.db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("viewed_at", visionsuit.db.UtcDateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["base_model_id"], ["base_model.id"], name=op.f("fk_generation_base_model_id_base_model")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_generation_job_id_job")),
        sa.ForeignKeyConstraint(["owner_id"], ["account.id"], name=op.f("fk_generation_owner_id_account")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_generation")),
        sa.UniqueConstraint("job_id", name=op.f("uq_generation_job_id")),
        sa.UniqueConstraint("public_id", name=op.f("uq_generation_public_id")),
    )
    with op.batch_alter_table("generation", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_generation_owner_id"), ["owner_id"], unique=False)

    op.create_table(
        "model_version",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("public_id", sa.String(length=32), nullable=False),
        sa.Column("card_id", sa.Integer(), nullable=False),
        sa.Column("label", sa.String(length=80), nullable=False),
        sa.Column("object_id", sa.String(length=64), nullable=False),
        sa.Column("file_name", sa.String(length=255), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("is_primary", sa.Boolean(), nullable=False),
        sa.Column("created_at", visionsuit.db.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["card_id"], ["model_card.id"], name=op.f("fk_model_version_card_id_model_card"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_version")),
        sa.UniqueConstraint("card_id", "label", name=op.f("uq_model_version_card_id_label")),
        sa.UniqueConstraint("object_id", name=op.f("uq_model_version_object_id")),
        sa.UniqueConstraint("public_id", name=op.f("uq_model_version_public_id")),
    )
    with op.batch_alter_table("model_version", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_model_version_card_id"), ["card_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_model_version_sha256"), ["sha256"], unique=False)

    op.create_table(
        "upload_file",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("draft_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("attempt", sa.String(length=32), nullable=True),
        sa.Column("objects", sa.JSON(), nullable=False),
        sa.Column("received", sa.JSON(none_as_null=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["draft_id"], ["upload_draft.id"], name=op.f("fk_upload_file_draft_id_upload_draft"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_upload_file")),
        sa.UniqueConstraint("draft_id", "number", name=op.f("uq_upload_file_draft_id_number")),
    )
    op.create_table(
        "download_count",
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["account.id"], name=op.f("fk_download_count_account_id_account"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["model_version.id"],
            name=op.f("fk_download_count_version_id_model_version"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("account_id", "version_id", "day", name=op.f("pk_download_count")),
    )
    op.create_table(
        "gallery_item",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("gallery_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=True),
        sa.Column("card_id", sa.Integer(), nullable=True),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.CheckConstraint("(image_id IS NULL) <> (card_id IS NULL)", name=op.f("ck_gallery_item_one_thing")),
        sa.ForeignKeyConstraint(
            ["card_id"], ["model_card.id"], name=op.f("fk_gallery_item_card_id_model_card"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["gallery_id"], ["gallery.id"], name=op.f("fk_gallery_item_gallery_id_gallery"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["image_id"], ["image.id"], name=op.f("fk_gallery_item_image_id_image"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gallery_item")),
        sa.UniqueConstraint("gallery_id", "card_id", name=op.f("uq_gallery_item_gallery_id_card_id")),
        sa.UniqueConstraint("gallery_id", "image_id", name=op.f("uq_gallery_item_gallery_id_image_id")),
    )
    with op.batch_alter_table("gallery_item", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_gallery_item_card_id"), ["card_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_gallery_item_image_id"), ["image_id"], unique=False)
        batch_op.create_index("ix_gallery_item_order", ["gallery_id", "position", "id"], unique=False)

    op.create_table(
        "generation_image",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("public_id", sa.String(length=32), nullable=False),
        sa.Column("generation_id", sa.Integer(), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("object_id", sa.String(length=64), nullable=False),
        sa.Column("thumb_small_id", sa.String(length=64), nullable=False),
        sa.Column("thumb_large_id", sa.String(length=64), nullable=False),
        sa.Column("placeholder", sa.Text(), nullable=True),
        sa.Column("dhash", sa.String(length=16), nullable=True),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("saved_image_id", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["generation_id"],
            ["generation.id"],
            name=op.f("fk_generation_image_generation_id_generation"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["saved_image_id"], ["image.id"], name=op.f("fk_generation_image_saved_image_id_image"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_generation_image")),
        sa.UniqueConstraint("generation_id", "index", name=op.f("uq_generation_image_generation_id_index")),
        sa.UniqueConstraint("object_id", name=op.f("uq_generation_image_object_id")),
        sa.UniqueConstraint("public_id", name=op.f("uq_generation_image_public_id")),
        sa.UniqueConstraint("thumb_large_id", name=op.f("uq_generation_image_thumb_large_id")),
        sa.UniqueConstraint("thumb_small_id", name=op.f("uq_generation_image_thumb_small_id")),
    )
    with op.batch_alter_table("generation_image", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_generation_image_saved_image_id"), ["saved_image_id"], unique=False)

    for table in ("gallery", "image", "model_card"):
        op.create_index(f"ix_{table}_lower_title", table, [sa.text("lower(title)"), "id"])
    for statement in create_index_sql(op.get_bind().dialect.name):
        op.execute(statement)


def downgrade() -> None:
    for statement in drop_index_sql(op.get_bind().dialect.name):
        op.execute(statement)
    with op.batch_alter_table("generation_image", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_generation_image_saved_image_id"))

    op.drop_table("generation_image")
    with op.batch_alter_table("gallery_item", schema=None) as batch_op:
        batch_op.drop_index("ix_gallery_item_order")
        batch_op.drop_index(batch_op.f("ix_gallery_item_image_id"))
        batch_op.drop_index(batch_op.f("ix_gallery_item_card_id"))

    op.drop_table("gallery_item")
    op.drop_table("download_count")
    op.drop_table("upload_file")
    with op.batch_alter_table("model_version", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_model_version_sha256"))
        batch_op.drop_index(batch_op.f("ix_model_version_card_id"))

    op.drop_table("model_version")
    with op.batch_alter_table("generation", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_generation_owner_id"))

    op.drop_table("generation")
    with op.batch_alter_table("gallery", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_gallery_visibility"))
        batch_op.drop_index(batch_op.f("ix_gallery_owner_id"))

    op.drop_table("gallery")
    with op.batch_alter_table("upload_draft", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_upload_draft_touched_at"))
        batch_op.drop_index(batch_op.f("ix_upload_draft_owner_id"))

    op.drop_table("upload_draft")
    with op.batch_alter_table("storage_object", schema=None) as batch_op:
        batch_op.drop_index("ix_storage_object_subject")
        batch_op.drop_index(batch_op.f("ix_storage_object_sha256"))
        batch_op.drop_index(batch_op.f("ix_storage_object_owner_id"))

    op.drop_table("storage_object")
    op.drop_table("owner_share")
    with op.batch_alter_table("model_card", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_model_card_visibility"))
        batch_op.drop_index(batch_op.f("ix_model_card_owner_id"))
        batch_op.drop_index("ix_model_card_downloads")
        batch_op.drop_index(batch_op.f("ix_model_card_cover_small_id"))
        batch_op.drop_index(batch_op.f("ix_model_card_cover_object_id"))
        batch_op.drop_index(batch_op.f("ix_model_card_cover_large_id"))

    op.drop_table("model_card")
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.drop_index("ix_job_waiting")
        batch_op.drop_index(batch_op.f("ix_job_owner_id"))
        batch_op.drop_index(batch_op.f("ix_job_claimed_by"))

    op.drop_table("job")
    with op.batch_alter_table("image", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_image_visibility"))
        batch_op.drop_index(batch_op.f("ix_image_thumb_small_id"))
        batch_op.drop_index(batch_op.f("ix_image_thumb_large_id"))
        batch_op.drop_index(batch_op.f("ix_image_sha256"))
        batch_op.drop_index(batch_op.f("ix_image_owner_id"))
        batch_op.drop_index(batch_op.f("ix_image_generation_id"))

    op.drop_table("image")
    with op.batch_alter_table("api_token", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_api_token_account_id"))

    op.drop_table("api_token")
    with op.batch_alter_table("account_session", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_account_session_expires_at"))
        batch_op.drop_index(batch_op.f("ix_account_session_account_id"))

    op.drop_table("account_session")
    op.drop_table("worker_presence")
    with op.batch_alter_table("tag_count", schema=None) as batch_op:
        batch_op.drop_index("ix_tag_count_order")

    op.drop_table("tag_count")
    op.drop_table("site_setting")
    op.drop_table("setup_invitation")
    op.drop_table("queue_state")
    op.drop_table("pace")
    with op.batch_alter_table("login_attempts", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_login_attempts_last_at"))

    op.drop_table("login_attempts")
    op.drop_table("base_model")
    with op.batch_alter_table("audit_entry", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_audit_entry_at"))
        batch_op.drop_index(batch_op.f("ix_audit_entry_actor_id"))
        batch_op.drop_index(batch_op.f("ix_audit_entry_action"))

    op.drop_table("audit_entry")
    op.drop_table("account")
