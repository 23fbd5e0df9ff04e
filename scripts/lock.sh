#!/usr/bin/env bash
# Compile requirements.lock from pyproject.toml, and the locks of ExecuTorch's and garak's own environments from their lists. torch and what its build needs (CUDA wheels on some
# machines, nothing on others) stay out of it: set-up installs torch first and lets it bring its own.
set -euo pipefail
cd "$(dirname "$0")/.."
skip=(torch triton cuda-bindings cuda-pathfinder cuda-toolkit
      nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft
      nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse nvidia-cusparselt-cu13 nvidia-nccl-cu13
      nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx)
.venv/bin/uv pip compile pyproject.toml --extra dev --python-version 3.11 --quiet \
  --custom-compile-command 'make lock' --output-file requirements.lock "${skip[@]/#/--no-emit-package=}" "$@"

for there in pocketloop/models/pte_env pocketloop/safety/garak_env; do
  .venv/bin/uv pip compile "$there/requirements.in" --python-version 3.11 --quiet \
    --custom-compile-command 'make lock' --output-file "$there/requirements.lock" "${skip[@]/#/--no-emit-package=}" "$@"
done
