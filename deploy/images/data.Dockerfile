# syntax=docker/dockerfile:1
# Steps that prepare data, keep the books and publish (stacks/kinds.py). Layers: system, locked packages, code.
FROM python:3.11-slim-bookworm AS packages
RUN pip install --no-cache-dir "uv>=0.9" && python -m venv /venv
WORKDIR /build
COPY requirements.lock deploy/images/common.in deploy/images/data.in ./
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --python /venv --requirement data.in --constraint requirements.lock --compile-bytecode

FROM python:3.11-slim-bookworm
ENV PATH=/venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 POCKETLOOP_HOME=/var/lib/pocketloop
RUN useradd --create-home --uid 1000 pocketloop && mkdir -p /var/lib/pocketloop && chown 1000 /var/lib/pocketloop
COPY --from=packages /venv /venv
WORKDIR /app
COPY pyproject.toml ./
COPY configs configs
COPY stacks stacks
COPY pipelines pipelines
COPY steps steps
COPY pocketloop pocketloop
USER 1000
