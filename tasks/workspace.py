"""Which workspace this is: the same on every machine that mounts the folder, another in every clone and every copy."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from secrets import token_hex

from amopo_core.atomic import replacing

ID = Path(".amopo/workspace")


def workspace_id() -> str:
    """16 digits; a new folder gets its own at the first call, made while this process has the folder's turn.

    The path is part of it: a copy of the folder brings the file along.
    """
    if not ID.exists():
        with replacing(ID) as file:
            file.write(token_hex(16))
    return sha256(f"{ID.read_text(encoding='utf-8')}:{Path.cwd().resolve()}".encode()).hexdigest()[:16]
