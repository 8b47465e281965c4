"""Images out of requests: `data:` URLs with base64, decoded within limits; nothing of an image is trusted.

The header is read first: format, size and number of pixels are known before a pixel is decoded. A decoded image is
shrunk at once to what the model looks at: a file of 4 KB may hold pixels that take 128 MiB. EXIF is ignored, an
animation's first frame is taken.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from moorage_runtime.embedding.config import InvalidInput

if TYPE_CHECKING:
    from PIL import Image

FORMATS: Final = {"image/png": "PNG", "image/jpeg": "JPEG", "image/jpg": "JPEG", "image/webp": "WEBP"}
MAX_BYTES: Final = 4 * 1024 * 1024
MAX_PIXELS: Final = 32 * 1024 * 1024
MAX_REQUEST_PIXELS: Final = 128 * 1024 * 1024
"""Of all images of one request: decoding takes time too, and others wait meanwhile."""

MAX_RATIO: Final = 200
"""The longer side over the shorter; Qwen2-VL takes no more."""

_DATA: Final = re.compile(r"data:(image/[a-z]+);base64,", re.IGNORECASE)


def _as_it_is(width: int, height: int) -> tuple[int, int]:
    return width, height


@dataclass
class Intake:
    """How the images of one request are taken."""

    scaled: Callable[[int, int], tuple[int, int]] = _as_it_is
    """Gives the size at which the model looks at an image."""
    pixels: int = 0
    """Of those that have come so far."""

    def admit(self, width: int, height: int) -> None:
        """Count an image; raise InvalidInput where it is one too many."""
        self.pixels += width * height
        if self.pixels > MAX_REQUEST_PIXELS:
            raise InvalidInput(
                f"with it the images of this request have {self.pixels} pixels together; at most {MAX_REQUEST_PIXELS} "
                "are taken: send fewer at once, or smaller ones"
            )


def from_data_url(url: str, intake: Intake | None = None) -> Image.Image:
    """Give the image in a `data:` URL; raise InvalidInput that says what is wrong with it."""
    found = _DATA.match(url)
    if found is None or found[1].lower() not in FORMATS:
        raise InvalidInput("it is not a data: URL of image/png, image/jpeg or image/webp in base64")
    if (len(url) - found.end()) * 3 // 4 > MAX_BYTES:
        raise InvalidInput(f"it has more than {MAX_BYTES} bytes")
    try:
        content = base64.b64decode(url[found.end() :].encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise InvalidInput(f"its base64 is not valid: {error}") from error
    return from_bytes(content, intake, FORMATS[found[1].lower()])


def from_bytes(content: bytes, intake: Intake | None = None, kind: str | None = None) -> Image.Image:
    """Decode an image of one of the formats, or of the one that it is said to have."""
    from PIL import Image

    intake = intake or Intake()

    if len(content) > MAX_BYTES:
        raise InvalidInput(f"it has {len(content)} bytes; at most {MAX_BYTES} are taken")
    formats = [kind] if kind else sorted(set(FORMATS.values()))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=formats) as image:
                _check_size(*image.size)
                intake.admit(*image.size)
                # Only the first frame, without what EXIF says of its orientation.
                return _shrunk(image, intake.scaled(*image.size))
    except InvalidInput:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InvalidInput(f"it has too many pixels: at most {MAX_PIXELS} are taken") from error
    except Exception as error:  # Pillow's decoders raise whatever a damaged file makes of them
        raise InvalidInput(f"it cannot be read as {' or '.join(formats)}: {_said(error)}") from error


def _shrunk(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Decode in RGB and scale down as the model's own code would; what is too small for it, it scales up itself."""
    from PIL import Image

    if size[0] >= image.width or size[1] >= image.height:
        return image.convert("RGB")
    # JPEG is decoded at half the size or less, as long as there is enough left for the model's own filter.
    image.draft(None, (2 * size[0], 2 * size[1]))
    # Grey has one byte for each pixel, where RGB has four.
    plain = image.convert("L" if image.mode in {"1", "L"} else "RGB")
    return plain.resize(size, Image.Resampling.BICUBIC).convert("RGB")


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise InvalidInput(f"it has {width} x {height} pixels; at most {MAX_PIXELS} are taken")
    if not width or not height or max(width, height) > MAX_RATIO * min(width, height):
        raise InvalidInput(f"it is {width} x {height}; one side may be at most {MAX_RATIO} times the other")


def _said(error: Exception) -> str:
    return re.sub(r"<_io\.BytesIO[^>]*>", "the data", str(error))[:200] or type(error).__name__
