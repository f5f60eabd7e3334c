"""What the pages of this package have in common."""

import base64
import hashlib

__all__ = ["policy_hash"]


def policy_hash(text: str) -> str:
    """What a content security policy calls an inline script or style that is exactly `text`."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
