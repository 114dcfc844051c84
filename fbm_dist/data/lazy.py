"""Values that open files or work something out when they are first asked. Imports no torch."""

from __future__ import annotations

from typing import Any


class Lazy:
    """Base of dataclasses with cached properties: their fields travel to other processes, what was worked out from them does not."""

    def __getstate__(self) -> dict[str, Any]:
        fields: dict[str, Any] = self.__dataclass_fields__  # type: ignore[attr-defined]
        return {name: self.__dict__[name] for name in fields}
