"""Images and videos of a request -> frames as the model takes them. Nothing else is read: no file, no other machine's
network.

An image is a data URL. One at an http address is fetched only from the hosts that the server's owner names, from public
addresses alone, also after redirects, and from the very address that was checked (`addresses.py`).
"""

import dataclasses
import http.client
import time
import urllib.parse
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import UInt8

from flamingo_jax import addresses
from flamingo_jax.errors import UserError
from flamingo_jax.inputs.images import ImageFormat, to_frames
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.serving import uploads
from flamingo_jax.serving.requests import from_data_url

Image = UInt8[np.ndarray, '...']  # [height width 3] of an image, [t height width 3] of a video.
REDIRECTS = 3
FETCH_SECONDS = 10.0  # For one image, in all.


def frames_of(config: FlamingoConfig) -> int:
    """How many frames of a video a model is shown; 1 for a model that takes no videos."""
    return 1 if config.resampler is None else config.resampler.frames or 8


@dataclasses.dataclass(frozen=True)
class Images:
    """Reads what a request shows.

    Attributes:
      format: how the model takes images.
      frames: of a video; 1 for a model that takes none.
      hosts: from which images may be fetched; none by default.
      allowed: whether an IP address may be asked; a test allows its own.
    """

    format: ImageFormat
    frames: int
    hosts: frozenset[str] = frozenset()
    allowed: Callable[[str], bool] = addresses.is_public

    def image(self, url: Any) -> Image:
        """A still. UserError if it cannot be read or is over the limits of `uploads`."""
        data = self._data(url)
        uploads.check(data)
        return to_frames(data, self.format.size, self.format.fit)[0]

    def video(self, urls: Any) -> Image:
        """A video of a file at one URL, or of its frames at a list of them. UserError as for `image`."""
        if self.frames == 1:
            raise UserError('This model does not take videos. Give images.')
        if isinstance(urls, list):
            return np.stack([self.image(url) for url in urls])
        frames = uploads.prepare(self._data(urls), self.format, self.frames, video=True)
        return to_frames(frames, self.format.size, self.format.fit)

    def _data(self, url: Any) -> bytes:
        if not isinstance(url, str) or not url.startswith(('http://', 'https://')):
            return from_data_url(url)
        ends = time.monotonic() + FETCH_SECONDS
        for _ in range(REDIRECTS + 1):
            found = self._fetch(url, ends)
            if isinstance(found, bytes):
                return found
            url = urllib.parse.urljoin(url, found)
        raise UserError(f'The address of an image redirects more than {REDIRECTS} times.')

    def _fetch(self, url: str, ends: float) -> bytes | str:
        """What is at a URL, or where it redirects to."""
        connection, path, host = self._connection(url)
        try:
            connection.request('GET', path, headers={'Host': host, 'Accept': 'image/*', 'User-Agent': 'flamingo_jax'})
            response = connection.getresponse()
            if response.status in (301, 302, 303, 307, 308):
                return response.getheader('Location', '')
            if response.status != 200:
                raise UserError(f'{host} answers {response.status} and sends no image.')
            parts, size = [], 0
            while part := response.read1(65536):
                parts.append(part)
                size += len(part)
                if size > uploads.BYTES:
                    raise UserError(f'The image at {host} is larger than {uploads.BYTES / 2**20:.0f} MiB.')
                if time.monotonic() > ends:
                    raise TimeoutError
            return b''.join(parts)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f'The image at {host} cannot be fetched. Send it as a data URL.') from error
        finally:
            connection.close()

    def _connection(self, url: str) -> tuple[addresses.PinnedConnection, str, str]:
        """(connection to an address that is allowed, path, header Host). UserError if it is not allowed."""
        refused = UserError(
            'Images are not fetched from this address: it is not of a public host that this server allows. Send the '
            'image as a data URL, data:image/png;base64,...'
        )
        try:
            parts = urllib.parse.urlsplit(url)
            secure = parts.scheme == 'https'
            port = parts.port or (443 if secure else 80)
            allowed = parts.scheme in ('http', 'https') and parts.hostname in self.hosts and not parts.username
            found = addresses.addresses_of(parts.hostname or '', port) if allowed else []
        except (OSError, ValueError) as error:
            raise refused from error
        if not found or not all(map(self.allowed, found)):
            raise refused
        connection = addresses.PinnedConnection(parts.hostname or '', port, found[0], secure, FETCH_SECONDS)
        path = urllib.parse.urlunsplit(('', '', parts.path or '/', parts.query, ''))
        return connection, urllib.parse.quote(path, safe="/?&=%~:@!$'()*+,;"), parts.netloc
