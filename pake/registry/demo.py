"""Demo data: services with a history, made by PostgreSQL itself, so that a million rows take seconds."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.orm import Session

from pake.database import take_any_time

_SERVICES = text("""
    INSERT INTO service_registry (service_id, service_name, service_version, service_type, environment,
                                  base_url, health_check_url, labels, status)
    SELECT gen_random_uuid(), format('demo-%s', lpad(n::text, 5, '0')), format('1.%s.0', n % 10),
           (ARRAY['api', 'worker', 'database', 'cache'])[1 + n % 4],
           (ARRAY['production', 'staging', 'testing', 'development'])[1 + n % 4],
           format('http://127.0.0.1:%s/', 20000 + n % 10000),
           format('http://127.0.0.1:%s/livez', 20000 + n % 10000),
           jsonb_build_object('team', 'team-' || n % 7),
           CASE WHEN n % 20 = 0 THEN 'maintenance' ELSE 'active' END
    FROM generate_series(1, :services) AS n
    ON CONFLICT (service_name) DO NOTHING
    RETURNING service_id
""")

_HEALTH_CHECKS = text("""
    INSERT INTO service_health_checks (service_id, status, response_time_ms, error_message, timestamp)
    SELECT service_id,
           CASE WHEN n % 25 = 0 THEN 'unhealthy' WHEN n % 10 = 0 THEN 'degraded' ELSE 'healthy' END,
           5 + random() * 200, CASE WHEN n % 25 = 0 THEN 'connection refused' END,
           now() - n * interval '1 minute'
    FROM unnest(CAST(:ids AS uuid[])) AS service_id, generate_series(1, :rows) AS n
""")

_METRICS = text("""
    INSERT INTO service_metrics (service_id, metric_name, metric_value, metric_labels, timestamp)
    SELECT service_id, (ARRAY['cpu_percent', 'memory_bytes', 'requests_per_second'])[1 + n % 3],
           random() * 100, jsonb_build_object('host', 'host-' || n % 3), now() - n * interval '1 minute'
    FROM unnest(CAST(:ids AS uuid[])) AS service_id, generate_series(1, :rows) AS n
""")


def add_demo_services(session: Session, *, services: int, health_checks: int, metrics: int) -> int:
    """Add services `demo-00001` and on, each with a history one minute apart; the number that was new.

    Services that are there already, and their histories, stay as they are. The caller commits.
    """
    take_any_time(session.connection())
    ids = list(session.scalars(_SERVICES, {"services": services}))
    session.execute(_HEALTH_CHECKS, {"ids": ids, "rows": health_checks})
    session.execute(_METRICS, {"ids": ids, "rows": metrics})
    return len(ids)
