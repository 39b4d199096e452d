"""What requests hold, read within limits: bodies, numbers, images in data URLs. The page reads its requests so, too."""

import asyncio
import base64
import binascii
import contextlib
import json
import re
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from flamingo_jax.errors import UserError
from flamingo_jax.serving import uploads


async def body(request: Request, most: int, seconds: float | None = None) -> bytes:
    """A request's body.

    Raises:
      HTTPException: it is longer than `most` bytes, which is told without reading the rest, or takes longer than
        `seconds`; None is no limit.
    """
    parts, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise HTTPException(413, f'This is larger than {most / 2**20:.0f} MiB. Send less.')
                parts.append(part)
    except TimeoutError as error:
        raise HTTPException(408, f'The request took longer than {seconds:.0f} s to arrive. Send it faster.') from error
    return b''.join(parts)


async def json_object(request: Request, most: int, seconds: float | None = None) -> dict[str, Any]:
    """A body that is a JSON object. HTTPException if it is none, or as for `body`."""
    data = await body(request, most, seconds)
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(data)
        if isinstance(found, dict):
            return found
    raise HTTPException(400, 'The request is not a JSON object.')


def require_numbers(given: Mapping[str, Any], bounds: Mapping[str, tuple[type, int | float, int | float]]) -> None:
    """UserError for a number that is out of its bounds (type, from, to); it names the number and its bounds."""
    for name, value in given.items():
        kind, low, high = bounds[name]
        right = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
        if not right or not low <= value <= high:
            whole = 'whole ' if kind is int else ''
            raise UserError(f'{name} must be a {whole}number from {low} to {high}, not {value!r}.')


def from_data_url(url: Any) -> bytes:
    """The bytes of a data URL in base64. UserError if it is none."""
    found = re.fullmatch(r'data:[\w/+.-]*;base64,([A-Za-z0-9+/=]*)', url) if isinstance(url, str) else None
    with contextlib.suppress(binascii.Error):
        if found:
            return base64.b64decode(found[1], validate=True)
    raise UserError('A frame is not a data URL of an image in base64.')


def to_data_url(data: bytes) -> str:
    """The data URL of an encoded image."""
    return f'data:image/{uploads.check(data)[0].lower()};base64,{base64.b64encode(data).decode()}'
