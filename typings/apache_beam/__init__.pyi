# Beam exports its names by stars, which its own annotations do not reach.
from typing import Any

def __getattr__(name: str) -> Any: ...
