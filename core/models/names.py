"""Checks a model's name against a library's list."""

from __future__ import annotations

import difflib


def known_model(model: str, models: list[str]) -> str:
    """``model`` if it is in the list; else ValueError with the nearest names."""
    if model in models:
        return model
    near = difflib.get_close_matches(model, models, n=5, cutoff=0.4)
    raise ValueError(f"unknown model {model!r}; nearest: {', '.join(near) or 'none'} (GET /architectures lists all)")
