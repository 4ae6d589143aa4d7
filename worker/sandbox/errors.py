"""What can be wrong with the sandbox.

SandboxError
"""

from __future__ import annotations


class SandboxError(Exception):
    """The sandbox cannot be had here; the text says why, for the operator."""
