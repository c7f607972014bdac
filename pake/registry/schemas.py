"""What clients send to the registry and get from it."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

import orjson
from pydantic import (
    AfterValidator,
    AnyHttpUrl,
    AwareDatetime,
    Discriminator,
    Field,
    RootModel,
    Tag,
    TypeAdapter,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
)

from pake.errors import Problem
from pake.registry.models import Environment, HealthStatus, ServiceStatus
from pake.schemas import In, Int4, Int8, Out, Page, Text

MAX_BATCH = 1000
PAST = timedelta(days=30)
FUTURE = timedelta(minutes=5)
"""How far a client's clock may be from ours."""

_url = TypeAdapter(AnyHttpUrl)
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE)


def _http_url(value: str) -> str:
    _url.validate_python(value)
    return value


def _recent(value: Any, parse: ValidatorFunctionWrapHandler) -> datetime:
    if not isinstance(value, str) or not _RFC_3339.fullmatch(value):  # pydantic also reads "1795000000"
        raise ValueError("must be a time as in RFC 3339, such as 2026-01-31T12:00:00Z")
    moment: datetime = parse(value)
    now = datetime.now(UTC)
    if not now - PAST <= moment <= now + FUTURE:
        raise ValueError(f"must lie within the last {PAST.days} days")
    return moment


Name = Annotated[Text, Field(min_length=1, max_length=100)]
Short = Annotated[Text, Field(min_length=1, max_length=50)]
Url = Annotated[Text, Field(max_length=2048), AfterValidator(_http_url)]
Labels = Annotated[
    dict[Annotated[Text, Field(min_length=1, max_length=63)], Annotated[Text, Field(max_length=255)]],
    Field(max_length=50),
]
Recent = Annotated[AwareDatetime, Field(strict=False), WrapValidator(_recent)]
Interval = Annotated[Int4, Field(ge=1, le=86_400)]
Timeout = Annotated[Int4, Field(ge=1, le=300)]
Include = Annotated[
    Literal["health_checks", "metrics", "health_checks,metrics", "metrics,health_checks"],
    Field(description="Histories to show with each service."),
]
Cursor = Annotated[
    str,
    Field(max_length=600, pattern=r"^[A-Za-z0-9_-]+=*$", description="`next_cursor` of the page before."),
]
Limit = Annotated[Int4, Field(ge=1, le=100)]


class ServiceIn(In):
    """A service to register."""

    service_name: Name
    service_version: Short
    service_type: Short
    environment: Environment
    base_url: Url
    health_check_url: Url | None = None
    health_check_interval_seconds: Interval = 60
    health_timeout_seconds: Timeout = 5
    labels: Labels = Field(default_factory=dict)
    status: ServiceStatus = "active"


NOT_SENT: Any = Field(default_factory=lambda: None)
"""A field that may be left out, though it may not be null: a default is never validated."""


class ServicePatch(In):
    """Fields to change; those not sent stay."""

    service_name: Name = NOT_SENT
    service_version: Short = NOT_SENT
    service_type: Short = NOT_SENT
    environment: Environment = NOT_SENT
    base_url: Url = NOT_SENT
    health_check_url: Url | None = NOT_SENT
    health_check_interval_seconds: Interval = NOT_SENT
    health_timeout_seconds: Timeout = NOT_SENT
    labels: Labels = NOT_SENT
    status: ServiceStatus = NOT_SENT


class HealthCheckIn(In):
    """One result of a health check."""

    status: HealthStatus
    response_time_ms: float | None = Field(None, ge=0, le=3_600_000)
    error_message: Annotated[Text, Field(max_length=2000)] | None = None
    check_type: Short = "http"
    timestamp: Recent | None = Field(None, description="When it was made; now when left out.")


class MetricIn(In):
    """One value of a metric."""

    metric_name: Annotated[str, Field(max_length=100, pattern=r"^[A-Za-z_:][A-Za-z0-9_:.]*$")]
    metric_value: float
    metric_labels: Labels = Field(default_factory=dict)
    timestamp: Recent | None = Field(None, description="When it was taken; now when left out.")


Item = TypeVar("Item")
Key = TypeVar("Key")


class Batch(In, Generic[Item]):
    """Several at once."""

    items: list[Item] = Field(min_length=1, json_schema_extra={"maxItems": MAX_BATCH})

    @field_validator("items")
    @classmethod
    def _bounded(cls, items: list[Item]) -> list[Item]:
        if len(items) > MAX_BATCH:
            raise Problem(413, f"A batch may have {MAX_BATCH} items.")
        return items


def _one_or_batch(value: Any) -> str:
    return "batch" if isinstance(value, dict) and "items" in value else "one"


class HealthChecksIn(
    RootModel[
        Annotated[
            Annotated[HealthCheckIn, Tag("one")] | Annotated[Batch[HealthCheckIn], Tag("batch")],
            Discriminator(_one_or_batch),
        ]
    ]
):
    """One health check, or `{"items": […]}`."""


class MetricsIn(
    RootModel[
        Annotated[
            Annotated[MetricIn, Tag("one")] | Annotated[Batch[MetricIn], Tag("batch")],
            Discriminator(_one_or_batch),
        ]
    ]
):
    """One metric, or `{"items": […]}`."""


class ServiceQuery(In):
    """Which histories to show with one service."""

    include: Include | None = None


class ServicesQuery(ServiceQuery):
    """Which services, and what to show with each."""

    environment: Environment | None = None
    status: ServiceStatus | None = None
    limit: Limit = 20
    cursor: Cursor | None = None


class PageQuery(In):
    """Which page."""

    limit: Limit = 20
    cursor: Cursor | None = None


class HealthCheckOut(Out):
    """One result of a health check."""

    health_check_id: int
    service_id: UUID
    status: HealthStatus
    response_time_ms: float | None
    error_message: str | None
    check_type: str
    timestamp: datetime


class MetricOut(Out):
    """One value of a metric."""

    metric_id: int
    service_id: UUID
    metric_name: str
    metric_value: float
    metric_labels: dict[str, str]
    timestamp: datetime


class ServiceOut(Out):
    """A service."""

    service_id: UUID
    service_name: str
    service_version: str
    service_type: str
    environment: Environment
    base_url: str
    health_check_url: str | None
    health_check_interval_seconds: int
    health_timeout_seconds: int
    labels: dict[str, str]
    status: ServiceStatus
    created_at: datetime
    updated_at: datetime


class ServiceWithHealthChecks(ServiceOut):
    """A service with its newest health checks, newest first."""

    health_checks: list[HealthCheckOut]


class ServiceWithMetrics(ServiceOut):
    """A service with its newest metrics, newest first."""

    metrics: list[MetricOut]


class ServiceWithAll(ServiceWithHealthChecks, ServiceWithMetrics):
    """A service with its newest health checks and metrics, newest first."""


class AnyService(RootModel[ServiceWithAll | ServiceWithHealthChecks | ServiceWithMetrics | ServiceOut]):
    """A service, with the histories that `include` names."""


class ServicePage(Page[AnyService]):
    """One page of services, by name."""


class HealthCheckPage(Page[HealthCheckOut]):
    """Health checks, newest first."""


class MetricPage(Page[MetricOut]):
    """Metrics, newest first."""


class HealthCheckWithService(HealthCheckOut):
    """A health check and the service it is about."""

    service: ServiceOut


class HealthCheckWithServicePage(Page[HealthCheckWithService]):
    """Health checks of all services, newest first, each with its service."""


NAME_KEY = TypeAdapter(tuple[Text])
TIME_KEY = TypeAdapter(tuple[AwareDatetime, Int8])
"""What a cursor holds: the key of the last row of a page."""


def to_cursor(*key: Any) -> str:
    """The key of a page's last row as an opaque word."""
    return base64.urlsafe_b64encode(orjson.dumps(key)).decode()


def from_cursor(key: TypeAdapter[Key], cursor: str | None) -> Key | None:
    """The key in a cursor of ours.

    Raises:
        Problem: 422, it is not one.
    """
    if cursor is None:
        return None
    try:
        return key.validate_json(base64.b64decode(cursor, altchars=b"-_", validate=True))
    except ValueError:
        raise Problem(422, "`cursor` is not the `next_cursor` of a page.") from None
