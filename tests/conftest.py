"""Shared set-up: quiet TensorFlow, one thread a worker."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
