# One build, two images: docker build --target api -t temper-api:0.1.0 . and --target worker -t temper-worker:0.1.0
#
# Python is the version that the tests run with: the lock has other versions of some packages for newer ones.
# A tag can be moved. To pin the bytes, append the digest: python:3.11.15-slim-bookworm@sha256:... as
# `docker buildx imagetools inspect python:3.11.15-slim-bookworm` prints it.
ARG PYTHON_IMAGE=python:3.11.15-slim-bookworm

# What Temper needs, at the versions of the lock, without what only its tests need. Several GB, so a layer of its own.
# A mirror of the package index comes in as a secret, and stays in no layer:
# docker build --secret id=pip,src=pip.conf --secret id=uv,src=uv.toml ...
FROM ${PYTHON_IMAGE} AS dependencies
ARG UV_VERSION=0.13.9
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_PYTHON_DOWNLOADS=never
RUN --mount=type=secret,id=pip,target=/root/.config/pip/pip.conf \
    pip install --no-cache-dir "uv==${UV_VERSION}" && uv venv /opt/temper
COPY requirements-run.lock /src/
RUN --mount=type=cache,target=/root/.cache/uv \
    --mount=type=secret,id=uv,target=/root/.config/uv/uv.toml \
    uv pip install --python /opt/temper/bin/python --no-deps --requirement /src/requirements-run.lock \
    && uv pip check --python /opt/temper/bin/python

# Temper itself. The build backend is the lock's as well.
FROM dependencies AS temper
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/root/.cache/uv \
    --mount=type=secret,id=uv,target=/root/.config/uv/uv.toml \
    uv pip install --python /opt/temper/bin/python --target /opt/app --no-deps --build-constraints requirements.lock .

# Nothing is written but below /var/lib/temper (TEMPER_DATA_DIR; also what libraries cache in HOME) and /tmp (uploads on
# their way to the store: mount a disk there, not memory). tini hands SIGTERM on and reaps what engines leave behind.
FROM ${PYTHON_IMAGE} AS runtime
RUN apt-get update \
    && apt-get install --yes --no-install-recommends "tini=0.19.0-*" \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 temper \
    && useradd --uid 10001 --gid 10001 --create-home --home-dir /var/lib/temper --shell /usr/sbin/nologin temper
COPY --from=dependencies /opt/temper /opt/temper
COPY --from=temper /opt/app /opt/app
ENV PATH=/opt/app/bin:/opt/temper/bin:$PATH \
    PYTHONPATH=/opt/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/var/lib/temper \
    TMPDIR=/tmp \
    TEMPER_DATA_DIR=/var/lib/temper
WORKDIR /var/lib/temper
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["tini", "--", "temperd"]

FROM runtime AS api
EXPOSE 8000
CMD ["api", "--host", "0.0.0.0"]
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]

# Its stop takes up to TEMPER_DRAIN_SECONDS and the time to store a state: give it a grace period of 60 s.
FROM runtime AS worker
CMD ["worker"]
HEALTHCHECK --interval=60s --timeout=30s --start-period=60s --retries=3 \
    CMD ["temperd", "doctor", "here"]
