"""The built web page: static files that the server reads, and nothing that runs.

``DIRECTORY`` is missing until the page has been built (see docs/ui.md); the server says so then.
"""

from __future__ import annotations

from pathlib import Path

DIRECTORY: Path = Path(__file__).parent / "dist"
"""Folder of the built page: ``index.html``, hashed assets, and a ``.gz`` beside what compresses."""
