"""Images out of requests: what is decoded, and what is refused before it is."""

import base64
import io
import struct
import zlib
from typing import Any

import pytest
from PIL import Image

from moorage_runtime.embedding import images
from moorage_runtime.embedding.config import InvalidInput
from moorage_runtime.embedding.images import Intake, from_bytes, from_data_url


def encoded(kind: str = "PNG", size: tuple[int, int] = (4, 3), mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, 7).save(buffer, kind, **options)
    return buffer.getvalue()


def url(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def refused(text: str) -> str:
    with pytest.raises(InvalidInput) as raised:
        from_data_url(text)
    return str(raised.value)


@pytest.mark.parametrize(("kind", "name"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp")])
def test_three_formats_become_rgb(kind: str, name: str) -> None:
    found = from_data_url(url(encoded(kind), name))
    assert (found.mode, found.size) == ("RGB", (4, 3))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "I;16"])
def test_every_kind_of_pixel_becomes_rgb(mode: str) -> None:
    assert from_data_url(url(encoded(mode=mode))).mode == "RGB"


def test_exif_turns_nothing() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter
    assert from_data_url(url(encoded("JPEG", exif=exif), "image/jpeg")).size == (4, 3)


def test_of_an_animation_the_first_frame_is_taken() -> None:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (4, 3), color) for color in ("red", "blue")]
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert from_data_url(url(buffer.getvalue(), "image/webp")).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    "text",
    [
        *("", "hello", "data:,x", "data:image/png,x", "data:image/svg+xml;base64,AA==", "data:image/gif;base64,AA=="),
        *("file:///etc/passwd", "data:text/html;base64,AA==", "http://example.com/a.png"),
    ],
)
def test_bad_input_51_only_data_urls_of_three_formats_are_taken(text: str) -> None:
    assert "it is not a data: URL" in refused(text)


@pytest.mark.parametrize("text", ["A", "AA=A", "!!!!", "AAAA\nAAAA", "ÄÄÄÄ"])
def test_bad_input_51_bad_base64_is_told(text: str) -> None:
    assert "base64 is not valid" in refused(f"data:image/png;base64,{text}")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_bad_input_51_a_truncated_file_is_told(kind: str) -> None:
    content = encoded(kind, size=(64, 64))
    assert "cannot be read" in refused(url(content[: len(content) * 2 // 3], f"image/{kind.lower()}"))
    assert "cannot be read" in refused(url(b"", f"image/{kind.lower()}"))


def test_bad_input_51_a_file_of_another_format_than_it_says_is_refused() -> None:
    assert "cannot be read as PNG" in refused(url(encoded("JPEG")))


def test_bad_input_51_too_many_bytes_are_seen_before_they_are_decoded() -> None:
    assert "more than 4194304 bytes" in refused("data:image/png;base64," + "!" * (6 * 1024 * 1024))
    with pytest.raises(InvalidInput, match="4194305 bytes"):
        from_bytes(bytes(images.MAX_BYTES + 1))


def test_bad_input_51_too_many_pixels_are_seen_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def png(width: int, height: int) -> bytes:
        """A header of any size, and no pixels."""
        header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        chunk = struct.pack(">I", len(header) - 4) + header + struct.pack(">I", zlib.crc32(header))
        data = b"IDAT" + zlib.compress(b"")
        return (
            b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
        )

    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("it was decoded"))
    assert "at most 33554432 are taken" in refused(url(png(8192, 4097)))
    assert "at most 33554432 are taken" in refused(url(png(60_000, 60_000)))
    assert "200 times the other" in refused(url(png(2010, 10)))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "RGB"])
def test_an_image_is_shrunk_as_the_model_s_own_code_would(mode: str) -> None:
    noise = Image.effect_noise((90, 60), 80).convert(mode)
    buffer = io.BytesIO()
    noise.save(buffer, "PNG")

    found = from_bytes(buffer.getvalue(), Intake(lambda _width, _height: (28, 56)))

    assert found.tobytes() == noise.convert("RGB").resize((28, 56), Image.Resampling.BICUBIC).tobytes()


def test_an_image_is_not_scaled_up_here() -> None:
    assert from_bytes(encoded(), Intake(lambda _width, _height: (28, 28))).size == (4, 3)


def test_a_large_jpeg_is_decoded_no_larger_than_twice_what_is_wanted() -> None:
    decoded = []
    convert = Image.Image.convert

    def watched(image: Image.Image, *given: Any, **named: Any) -> Image.Image:
        decoded.append(image.size)
        return convert(image, *given, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.Image, "convert", watched)
        found = from_data_url(
            url(encoded("JPEG", (800, 1600)), "image/jpeg"), Intake(lambda _width, _height: (50, 100))
        )

    assert (found.mode, found.size) == ("RGB", (50, 100))
    assert decoded[0] == (100, 200)
