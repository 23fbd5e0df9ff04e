# syntax=docker/dockerfile:1
# Steps that convert, ask and measure models (stacks/kinds.py). Layers: system, locked packages, ExecuTorch's own
# environment, code. The compiler that builds llama.cpp stays in the first stage.
FROM python:3.11-slim-bookworm AS packages
RUN apt-get update && apt-get install --yes --no-install-recommends build-essential && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir "uv>=0.9" && python -m venv /venv
WORKDIR /build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --python /venv --index-url $TORCH_INDEX torch==2.13.0
COPY requirements.lock deploy/images/common.in deploy/images/export.in ./
RUN --mount=type=cache,target=/root/.cache/uv CMAKE_ARGS=-DGGML_NATIVE=OFF \
    uv pip install --python /venv --requirement export.in --constraint requirements.lock --compile-bytecode

FROM packages AS executorch
ENV PATH=/venv/bin:$PATH PYTHONPATH=/build POCKETLOOP_ENVIRONMENTS=/opt/environments PIP_INDEX_URL=$TORCH_INDEX PIP_EXTRA_INDEX_URL=https://pypi.org/simple
COPY pocketloop/__init__.py pocketloop/__init__.py
COPY pocketloop/contracts pocketloop/contracts
COPY pocketloop/models/__init__.py pocketloop/models/environments.py pocketloop/models/
COPY pocketloop/models/pte_env pocketloop/models/pte_env
RUN python -c "from pocketloop.models.pte_env import pte_environment; pte_environment()"

FROM python:3.11-slim-bookworm
ENV PATH=/venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 POCKETLOOP_HOME=/var/lib/pocketloop POCKETLOOP_ENVIRONMENTS=/opt/environments
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 pocketloop && mkdir -p /var/lib/pocketloop && chown 1000 /var/lib/pocketloop
COPY --from=packages /venv /venv
COPY --from=executorch /opt/environments /opt/environments
WORKDIR /app
COPY pyproject.toml ./
COPY configs configs
COPY stacks stacks
COPY pipelines pipelines
COPY steps steps
COPY pocketloop pocketloop
USER 1000
