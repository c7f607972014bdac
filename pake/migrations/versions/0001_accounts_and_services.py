"""Accounts and services."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "service_registry",
        sa.Column("service_id", sa.Uuid(), nullable=False),
        sa.Column("service_name", sa.String(length=100, collation="C"), nullable=False),
        sa.Column("service_version", sa.String(length=50), nullable=False),
        sa.Column("service_type", sa.String(length=50), nullable=False),
        sa.Column("environment", sa.String(length=20), nullable=False),
        sa.Column("base_url", sa.String(length=2048), nullable=False),
        sa.Column("health_check_url", sa.String(length=2048), nullable=True),
        sa.Column(
            "health_check_interval_seconds", sa.Integer(), server_default=sa.text("60"), nullable=False
        ),
        sa.Column("health_timeout_seconds", sa.Integer(), server_default=sa.text("5"), nullable=False),
        sa.Column(
            "labels", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False
        ),
        sa.Column("status", sa.String(length=20), server_default=sa.text("'active'"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "environment IN ('development', 'testing', 'staging', 'production')",
            name=op.f("ck_service_registry_environment"),
        ),
        sa.CheckConstraint(
            "status IN ('active', 'maintenance', 'inactive', 'retired')",
            name=op.f("ck_service_registry_status"),
        ),
        sa.PrimaryKeyConstraint("service_id", name=op.f("pk_service_registry")),
        sa.UniqueConstraint("service_name", name=op.f("uq_service_registry_service_name")),
    )
    op.create_table(
        "sign_in_attempts",
        sa.Column("name_digest", sa.String(length=64), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("last_failure_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name_digest", name=op.f("pk_sign_in_attempts")),
    )
    op.create_index(
        op.f("ix_sign_in_attempts_last_failure_at"), "sign_in_attempts", ["last_failure_at"], unique=False
    )
    op.create_table(
        "users",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("username", sa.String(length=64), nullable=False),
        sa.Column("email", sa.String(length=254), nullable=True),
        sa.Column("full_name", sa.String(length=200), nullable=True),
        sa.Column("role", sa.String(length=16), server_default=sa.text("'user'"), nullable=False),
        sa.Column("password_hash", sa.String(length=200), nullable=False),
        sa.Column("disabled", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column(
            "tokens_valid_after", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("role IN ('user', 'admin')", name=op.f("ck_users_role")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("email", name=op.f("uq_users_email")),
        sa.UniqueConstraint("username", name=op.f("uq_users_username")),
    )
    op.create_table(
        "service_health_checks",
        sa.Column("health_check_id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("service_id", sa.Uuid(), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("response_time_ms", sa.Double(), nullable=True),
        sa.Column("error_message", sa.String(length=2000), nullable=True),
        sa.Column("check_type", sa.String(length=50), server_default=sa.text("'http'"), nullable=False),
        sa.Column("timestamp", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "status IN ('healthy', 'degraded', 'unhealthy')", name=op.f("ck_service_health_checks_status")
        ),
        sa.ForeignKeyConstraint(
            ["service_id"],
            ["service_registry.service_id"],
            name=op.f("fk_service_health_checks_service_id_service_registry"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("health_check_id", name=op.f("pk_service_health_checks")),
    )
    op.create_index(
        "ix_service_health_checks_all",
        "service_health_checks",
        [sa.literal_column('"timestamp" DESC'), sa.literal_column("health_check_id DESC")],
        unique=False,
    )
    op.create_index(
        "ix_service_health_checks_newest",
        "service_health_checks",
        ["service_id", sa.literal_column('"timestamp" DESC'), sa.literal_column("health_check_id DESC")],
        unique=False,
    )
    op.create_table(
        "service_metrics",
        sa.Column("metric_id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("service_id", sa.Uuid(), nullable=False),
        sa.Column("metric_name", sa.String(length=100), nullable=False),
        sa.Column("metric_value", sa.Double(), nullable=False),
        sa.Column(
            "metric_labels",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column("timestamp", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["service_id"],
            ["service_registry.service_id"],
            name=op.f("fk_service_metrics_service_id_service_registry"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("metric_id", name=op.f("pk_service_metrics")),
    )
    op.create_index(
        "ix_service_metrics_newest",
        "service_metrics",
        ["service_id", sa.literal_column('"timestamp" DESC'), sa.literal_column("metric_id DESC")],
        unique=False,
    )
    op.create_table(
        "token_families",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("refresh_jti", sa.String(length=36), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_token_families_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_token_families")),
    )
    op.create_index(op.f("ix_token_families_expires_at"), "token_families", ["expires_at"], unique=False)
    op.create_index(op.f("ix_token_families_user_id"), "token_families", ["user_id"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_token_families_user_id"), table_name="token_families")
    op.drop_index(op.f("ix_token_families_expires_at"), table_name="token_families")
    op.drop_table("token_families")
    op.drop_index("ix_service_metrics_newest", table_name="service_metrics")
    op.drop_table("service_metrics")
    op.drop_index("ix_service_health_checks_newest", table_name="service_health_checks")
    op.drop_index("ix_service_health_checks_all", table_name="service_health_checks")
    op.drop_table("service_health_checks")
    op.drop_table("users")
    op.drop_index(op.f("ix_sign_in_attempts_last_failure_at"), table_name="sign_in_attempts")
    op.drop_table("sign_in_attempts")
    op.drop_table("service_registry")
