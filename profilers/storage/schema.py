"""The tables of a store, in SQL that SQLite and PostgreSQL both read.

Profiles are rows; their statements are one JSON text in `detail`, kept for some of them. What the reports sum
up is kept summed: by endpoint, statement shape and finding in slots of time, which grow wider with age.
"""

VERSION = 3

SLOTS = ((900, 10), (3 * 3600, 60), (None, 3600))
"""How fine time is kept: (age in seconds up to which, seconds in a slot)."""

SLOT = SLOTS[0][1]

TABLES = """
CREATE TABLE IF NOT EXISTS tally (name TEXT PRIMARY KEY, value BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS control (name TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS worker (
    host TEXT NOT NULL, pid INTEGER NOT NULL, seen DOUBLE PRECISION NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (host, pid)
);
CREATE TABLE IF NOT EXISTS endpoint (id BIGINT PRIMARY KEY, text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS shape (id BIGINT PRIMARY KEY, text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS profile (
    id TEXT PRIMARY KEY, endpoint_id BIGINT NOT NULL, kind TEXT NOT NULL,
    started_at DOUBLE PRECISION NOT NULL, duration DOUBLE PRECISION NOT NULL,
    status INTEGER NOT NULL, outcome TEXT NOT NULL, host TEXT NOT NULL,
    worker INTEGER NOT NULL, statements INTEGER NOT NULL, row_count BIGINT NOT NULL,
    database_time DOUBLE PRECISION NOT NULL, findings INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS profile_started ON profile (started_at, id);
CREATE INDEX IF NOT EXISTS profile_endpoint ON profile (endpoint_id, started_at);
CREATE TABLE IF NOT EXISTS detail (
    profile_id TEXT PRIMARY KEY, notable INTEGER NOT NULL, started_at DOUBLE PRECISION NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS detail_order ON detail (notable, started_at);
CREATE TABLE IF NOT EXISTS endpoint_slot (
    slot BIGINT NOT NULL, width INTEGER NOT NULL, endpoint_id BIGINT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (width, slot, endpoint_id)
);
CREATE TABLE IF NOT EXISTS statement_slot (
    slot BIGINT NOT NULL, width INTEGER NOT NULL, endpoint_id BIGINT NOT NULL, shape_id BIGINT NOT NULL,
    calls BIGINT NOT NULL, duration DOUBLE PRECISION NOT NULL, duration_max DOUBLE PRECISION NOT NULL,
    row_count BIGINT NOT NULL, PRIMARY KEY (width, slot, endpoint_id, shape_id)
);
CREATE TABLE IF NOT EXISTS finding (
    id BIGINT PRIMARY KEY, body TEXT NOT NULL, first_seen DOUBLE PRECISION NOT NULL,
    last_seen DOUBLE PRECISION NOT NULL, last_profile TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS finding_slot (
    slot BIGINT NOT NULL, width INTEGER NOT NULL, endpoint_id BIGINT NOT NULL, finding_id BIGINT NOT NULL,
    requests BIGINT NOT NULL, statements BIGINT NOT NULL, duration DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (width, slot, endpoint_id, finding_id)
);
CREATE TABLE IF NOT EXISTS plan (
    shape_id BIGINT NOT NULL, source TEXT NOT NULL, first_seen DOUBLE PRECISION NOT NULL,
    last_seen DOUBLE PRECISION NOT NULL, body TEXT NOT NULL, PRIMARY KEY (shape_id, source, first_seen)
);
CREATE TABLE IF NOT EXISTS capture (
    id TEXT PRIMARY KEY, started_at DOUBLE PRECISION NOT NULL, ends_at DOUBLE PRECISION NOT NULL,
    scope TEXT NOT NULL, claimed_at DOUBLE PRECISION NOT NULL, body TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS memory_sample (
    taken_at DOUBLE PRECISION NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL,
    born DOUBLE PRECISION NOT NULL, body TEXT NOT NULL, PRIMARY KEY (taken_at, host, pid)
)
"""

SUMS = ("endpoint_slot", "statement_slot", "finding_slot")
CLEARED = ("profile", "detail", *SUMS, "finding", "plan", "endpoint", "shape", "tally", "memory_sample")
"""Tables that `clear` empties."""

ADD_TALLY = (
    "INSERT INTO tally VALUES ",
    2,
    " ON CONFLICT (name) DO UPDATE SET value = tally.value + excluded.value",
)
ADD_STATEMENTS = (
    "INSERT INTO statement_slot VALUES ",
    8,
    """ ON CONFLICT (slot, width, endpoint_id, shape_id) DO UPDATE SET
        calls = statement_slot.calls + excluded.calls,
        duration = statement_slot.duration + excluded.duration,
        row_count = statement_slot.row_count + excluded.row_count,
        duration_max = CASE WHEN excluded.duration_max > statement_slot.duration_max
                            THEN excluded.duration_max ELSE statement_slot.duration_max END""",
)
ADD_FINDING_SLOTS = (
    "INSERT INTO finding_slot VALUES ",
    7,
    """ ON CONFLICT (slot, width, endpoint_id, finding_id) DO UPDATE SET
        requests = finding_slot.requests + excluded.requests,
        statements = finding_slot.statements + excluded.statements,
        duration = finding_slot.duration + excluded.duration""",
)
ADD_FINDINGS = (
    "INSERT INTO finding VALUES ",
    5,
    """ ON CONFLICT (id) DO UPDATE SET
        body = excluded.body, last_seen = excluded.last_seen, last_profile = excluded.last_profile""",
)
REPLACE_ENDPOINTS = (
    "INSERT INTO endpoint_slot VALUES ",
    4,
    " ON CONFLICT (slot, width, endpoint_id) DO UPDATE SET body = excluded.body",
)
ADD_ENDPOINTS = ("INSERT INTO endpoint VALUES ", 2, " ON CONFLICT (id) DO NOTHING")
ADD_SHAPES = ("INSERT INTO shape VALUES ", 2, " ON CONFLICT (id) DO NOTHING")
ADD_PROFILES = ("INSERT INTO profile VALUES ", 13, "")
ADD_MEMORY_SAMPLES = ("INSERT INTO memory_sample VALUES ", 5, " ON CONFLICT DO NOTHING")
ADD_PLANS = ("INSERT INTO plan VALUES ", 5, " ON CONFLICT DO NOTHING")
ADD_CAPTURES = ("INSERT INTO capture VALUES ", 6, "")
ADD_DETAILS = ("INSERT INTO detail VALUES ", 4, "")
