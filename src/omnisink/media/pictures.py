"""Still and moving pictures (GIF, animated PNG, WebP and AVIF), read by Pillow."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from omnisink.errors import MediaError
from omnisink.media.choice import FrameChoice
from omnisink.media.colours import to_rgb
from omnisink.media.files import check_file
from omnisink.media.heads import is_motion_jpeg, refused_kind
from omnisink.media.limits import MAX_FRAME_PIXELS, MAX_FRAMES
from omnisink.media.scaling import kept_size

if TYPE_CHECKING:
    from PIL import Image

#: Formats that are read. Others of Pillow's start programs (EPS), are not pictures, or cannot be recognised.
FORMATS = (
    *(
        "PNG",
        "JPEG",
        "WEBP",
        "GIF",
        "AVIF",
        "BMP",
        "DIB",
        "TIFF",
        "ICO",
        "ICNS",
        "CUR",
        "JPEG2000",
        "PPM",
        "QOI",
        "PCX",
    ),
    *("SGI", "PSD", "DDS", "XBM", "XPM"),
)
#: Whose further frames are moments. Those of a TIFF are pages, and those of a phone's JPEG (MPO) are other views.
_MOVING = ("GIF", "PNG", "WEBP", "AVIF")
#: Shown so long where a file says nothing, as browsers and FFmpeg do, in milliseconds.
_UNTOLD = 100.0
_FILTERS = Lock()


def frames_of_picture(path: str | Path) -> int:
    """Return how many moments a picture has: 0 if the file is not a picture, 1 for a still one, more for a moving one.

    Raises
    ------
    MediaError
        If the file is missing, or a picture that is damaged or too large.
    """
    return look_at_picture(path)[0]


def look_at_picture(path: str | Path) -> tuple[int, tuple[int, int]]:
    """Return how many moments a picture has, and its height and width as stored; errors as `frames_of_picture`."""
    with _opened(path) as image:
        return (0, (0, 0)) if image is None else (_moments(image), (image.height, image.width))


def read_still(path: str | Path) -> tuple[NDArray[np.uint8], str]:
    """Read a still picture, or the first frame of a moving one.

    Returns
    -------
    tuple of ndarray of uint8 and str
        (H, W, 3), RGB, upright as its EXIF orientation says, on white; the name of the format.

    Raises
    ------
    MediaError
        If it is not a picture, is cut off or damaged, or is too large.
    """
    with _opened(path) as image:
        if image is None:
            raise MediaError(f"{path}: not an image that can be read{_why_not(path)}")
        kind = (image.format or "image").lower()
        return np.array(_upright(image)), kind


def read_as_clip(
    path: str | Path, choice: FrameChoice, max_side: int | None, max_pixels: int | None
) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.int64], tuple[int, int], str]:
    """Read a still picture as a video of one frame; returns and raises as `read_moving`."""
    from PIL import Image

    picture, kind = read_still(path)
    chosen = _chosen(path, choice, times := np.zeros(1))
    height, width = picture.shape[:2]
    size = kept_size(width, height, len(chosen), max_side, max_pixels)
    if size != (width, height):
        picture = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))
    return np.stack([picture] * len(chosen)), times, chosen, (width, height), kind


def read_moving(
    path: str | Path, choice: FrameChoice, max_side: int | None, max_pixels: int | None
) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.int64], tuple[int, int], str]:
    """Read the chosen frames of a moving picture.

    Returns
    -------
    tuple
        The frames, (N, H, W, 3) uint8 RGB on white; the times of all frames, (M,) seconds; which were chosen, (N,);
        width and height before any scaling; the name of the format.

    Raises
    ------
    MediaError
        If a frame that is needed is cut off or damaged, or no frame is chosen.
    """
    with _opened(path) as image:
        assert image is not None
        first = 1 if getattr(image, "default_image", False) else 0
        times = _times(image, first)
        chosen = _chosen(path, choice, times)
        size = kept_size(image.width, image.height, len(chosen), max_side, max_pixels)
        pixels = np.empty((len(chosen), size[1], size[0], 3), dtype=np.uint8)
        from PIL import Image

        for number in np.unique(chosen):
            image.seek(first + int(number))
            frame = to_rgb(image)
            if frame.size != size:
                frame = frame.resize(size, Image.Resampling.BOX)
            pixels[chosen == number] = np.asarray(frame)
        return pixels, times, chosen, image.size, (image.format or "image").lower()


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    """Open a picture; None if the file is not one. Whatever fails in a decoder is reported as damage to the file."""
    from PIL import Image, UnidentifiedImageError

    file = check_file(path)
    with file.open("rb") as opened:
        head = opened.read(512)
        opened.seek(0)
        if refused_kind(head) is not None or is_motion_jpeg(opened):
            yield None
            return
        opened.seek(0)
        try:
            try:
                # Pillow warns from half the size on at which it refuses; sizes are checked below. Filters of warnings
                # belong to the process, so one thread at a time changes them.
                with _FILTERS, warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    image = Image.open(_with_canvas(opened, head), formats=FORMATS)
            except UnidentifiedImageError:
                yield None
                return
            _check_size(path, image)
            yield image
        except MediaError:
            raise
        except Image.DecompressionBombError:
            raise MediaError(f"{path}: the picture has more than {MAX_FRAME_PIXELS:,} pixels, the limit") from None
        except MemoryError:
            raise MediaError(f"{path}: reading it needs more memory than there is") from None
        except (
            Exception
        ) as error:  # Pillow's decoders raise what they meet: struct.error, KeyError, EOFError and more.
            raise MediaError(f"{path}: the image is cut off or damaged ({error or type(error).__name__})") from None


def _with_canvas(file: BinaryIO, head: bytes) -> BinaryIO:
    """Say of a moving WebP that it is transparent: its frames may be, or may leave parts of the canvas free.

    Encoders leave the mark out where every frame is opaque, though smaller than the whole; Pillow fills up with black.
    """
    if head[:4] != b"RIFF" or head[8:16] != b"WEBPVP8X" or not (head[20:21] or b"\0")[0] & 2:
        return file
    data = bytearray(file.read())
    data[20] |= 0x10
    return BytesIO(data)


def _check_size(path: str | Path, image: Image.Image) -> None:
    if image.format in ("JPEG", "MPO") and image.width * image.height > MAX_FRAME_PIXELS:
        # A JPEG can be decoded at a half, a quarter or an eighth of its size, at the cost of the smaller picture.
        part = next((n for n in (2, 4, 8) if image.width * image.height <= MAX_FRAME_PIXELS * n * n), 8)
        image.draft("RGB", (-(-image.width // part), -(-image.height // part)))
    if image.width * image.height > MAX_FRAME_PIXELS:
        size = f"{image.width} x {image.height}"
        raise MediaError(f"{path}: the picture has more than {MAX_FRAME_PIXELS:,} pixels, the limit: it is {size}")


def _chosen(path: str | Path, choice: FrameChoice, times: NDArray[np.float64]) -> NDArray[np.int64]:
    chosen = np.asarray(choice.select(times), dtype=np.int64)
    if not len(chosen):
        raise MediaError(f"{path}: no frame was chosen")
    return chosen


def _upright(image: Image.Image) -> Image.Image:
    from PIL import ImageOps

    if getattr(image, "default_image", False):
        image.seek(1)  # An animated PNG may carry a picture for viewers that know no animation.
    image.load()
    return to_rgb(ImageOps.exif_transpose(image))


def _moments(image: Image.Image) -> int:
    if image.format not in _MOVING:
        return 1
    count = int(getattr(image, "n_frames", 1))
    return max(1, count - bool(getattr(image, "default_image", False)))


def _times(image: Image.Image, first: int) -> NDArray[np.float64]:
    """Add up how long each frame is shown; the file is gone through once."""
    count = _moments(image)
    if count > MAX_FRAMES:
        raise ValueError(f"it has {count:,} frames, more than the limit of {MAX_FRAMES:,}")
    lasts = np.empty(count)
    for number in range(count):
        image.seek(first + number)
        if image.format in ("WEBP", "AVIF"):
            image.load()  # Only then does Pillow know how long this frame is shown.
        said = float(image.info.get("duration") or 0.0)
        lasts[number] = said if said > 10.0 else _UNTOLD
    image.seek(0)
    return np.concatenate([[0.0], np.cumsum(lasts)[:-1]]) / 1000


def _why_not(path: str | Path) -> str:
    with Path(path).open("rb") as opened:
        kind = refused_kind(opened.read(512))
    return "" if kind is None else f": it is {kind}"
