"""Pulling: bring a model from its source into the store, once, whole and verified."""

from __future__ import annotations

from avllm.models.pull.pull import pull_model

__all__ = ["pull_model"]
