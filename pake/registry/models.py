"""Tables of services, their health checks and their metrics."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID, uuid4

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    String,
    TextClause,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship, synonym

from pake.extensions import Base

Environment = Literal["development", "testing", "staging", "production"]
ServiceStatus = Literal["active", "maintenance", "inactive", "retired"]
HealthStatus = Literal["healthy", "degraded", "unhealthy"]
Labels = dict[str, str]
Moment = DateTime(timezone=True)


def _newest(key: str) -> tuple[TextClause, TextClause]:
    """Newest first, as index columns."""
    return text('"timestamp" DESC'), text(f"{key} DESC")


class ServiceRegistry(Base):
    """A service that is watched. Deleting it deletes its history."""

    __tablename__ = "service_registry"
    __mapper_args__ = {"eager_defaults": True}  # noqa: RUF012 - SQLAlchemy's name and type
    __table_args__ = (
        CheckConstraint(
            "environment IN ('development', 'testing', 'staging', 'production')", name="environment"
        ),
        CheckConstraint("status IN ('active', 'maintenance', 'inactive', 'retired')", name="status"),
    )

    service_id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    service_name: Mapped[str] = mapped_column(String(100, collation="C"), unique=True)
    """Unique, and the key that pages are cut by: collation C orders it the same on every host."""
    service_version: Mapped[str] = mapped_column(String(50))
    service_type: Mapped[str] = mapped_column(String(50))
    environment: Mapped[Environment] = mapped_column(String(20))
    base_url: Mapped[str] = mapped_column(String(2048))
    health_check_url: Mapped[str | None] = mapped_column(String(2048))
    health_check_interval_seconds: Mapped[int] = mapped_column(server_default=text("60"))
    health_timeout_seconds: Mapped[int] = mapped_column(server_default=text("5"))
    labels: Mapped[Labels] = mapped_column(JSONB, server_default=text("'{}'"))
    status: Mapped[ServiceStatus] = mapped_column(String(20), server_default=text("'active'"))
    created_at: Mapped[datetime] = mapped_column(Moment, server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(
        Moment, server_default=func.now(), onupdate=func.clock_timestamp()
    )

    health_checks: Mapped[list[ServiceHealthCheck]] = relationship(
        back_populates="service",
        cascade="all, delete-orphan",
        passive_deletes=True,
        order_by="(ServiceHealthCheck.timestamp.desc(), ServiceHealthCheck.health_check_id.desc())",
    )
    metrics: Mapped[list[ServiceMetrics]] = relationship(
        back_populates="service",
        cascade="all, delete-orphan",
        passive_deletes=True,
        order_by="(ServiceMetrics.timestamp.desc(), ServiceMetrics.metric_id.desc())",
    )


class ServiceHealthCheck(Base):
    """One answer, or missing answer, of a service to a health check."""

    __tablename__ = "service_health_checks"
    __table_args__ = (
        CheckConstraint("status IN ('healthy', 'degraded', 'unhealthy')", name="status"),
        # The newest of one service, and the newest of all.
        Index("ix_service_health_checks_newest", "service_id", *_newest("health_check_id")),
        Index("ix_service_health_checks_all", *_newest("health_check_id")),
    )

    health_check_id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    id: Mapped[int] = synonym("health_check_id")
    service_id: Mapped[UUID] = mapped_column(ForeignKey(ServiceRegistry.service_id, ondelete="CASCADE"))
    status: Mapped[HealthStatus] = mapped_column(String(20))
    response_time_ms: Mapped[float | None]
    error_message: Mapped[str | None] = mapped_column(String(2000))
    check_type: Mapped[str] = mapped_column(String(50), server_default=text("'http'"))
    timestamp: Mapped[datetime] = mapped_column(Moment, server_default=func.now())

    service: Mapped[ServiceRegistry] = relationship(back_populates="health_checks")


class ServiceMetrics(Base):
    """One value of one metric of a service."""

    __tablename__ = "service_metrics"
    __table_args__ = (Index("ix_service_metrics_newest", "service_id", *_newest("metric_id")),)

    metric_id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    id: Mapped[int] = synonym("metric_id")
    service_id: Mapped[UUID] = mapped_column(ForeignKey(ServiceRegistry.service_id, ondelete="CASCADE"))
    metric_name: Mapped[str] = mapped_column(String(100))
    metric_value: Mapped[float]
    metric_labels: Mapped[Labels] = mapped_column(JSONB, server_default=text("'{}'"))
    timestamp: Mapped[datetime] = mapped_column(Moment, server_default=func.now())

    service: Mapped[ServiceRegistry] = relationship(back_populates="metrics")
