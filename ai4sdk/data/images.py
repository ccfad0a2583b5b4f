"""Pictures to arrays of shape (channels, height, width), float32 in 0..1."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ai4sdk.errors import DataError
from ai4sdk.spec import Images

__all__ = ["read_picture"]


def read_picture(picture: Any, how: Images, shown: str = "the picture") -> NDArray[np.float32]:
    """Read one picture.

    Parameters
    ----------
    picture
        A path, the bytes of a file, a Pillow image, or an array: (H, W), (H, W, C), or (C, H, W) of the size asked
        for; whole numbers in 0..255 or fractions in 0..1.
    how
        Size and mode to bring it to.
    shown
        What to call it in an error; for paths, the path itself.

    Returns
    -------
    array
        Shape (C, H, W), float32 in 0..1. Turned upright where a camera noted that it was held askew.

    Raises
    ------
    DataError
        If it does not exist, is no picture, or is cut short.
    """
    if isinstance(picture, Image.Image):
        return _fitted(picture, how)
    if isinstance(picture, str | Path):
        shown = str(picture)
    elif not isinstance(picture, bytes | bytearray | memoryview):
        return _from_array(np.asarray(picture), how, shown)
    file = io.BytesIO(picture) if isinstance(picture, bytes | bytearray | memoryview) else picture
    try:
        with Image.open(file) as image:
            return _fitted(image, how)
    except FileNotFoundError:
        raise DataError(f"there is no picture {shown}", hint="check the path") from None
    except UnidentifiedImageError:
        raise DataError(f"{shown} is no picture", hint="give a PNG, JPEG, BMP, GIF, TIFF or WebP file") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # Pillow tells damaged files by all of these.
        raise DataError(f"{shown} cannot be read: {error}", hint="fetch it again, or delete it") from error


def _fitted(image: Image.Image, how: Images) -> NDArray[np.float32]:
    height, width = how.size
    image.load()
    upright = ImageOps.exif_transpose(image) or image
    if upright.mode.startswith("I") or upright.mode == "F":  # 16 bits and more, which Pillow would cut off at 255
        pixels = np.asarray(upright, dtype=np.float64)
        scale = 257.0 if upright.mode != "F" and pixels.max(initial=0) > 255 else 1.0
        upright = Image.fromarray(np.clip(pixels / scale, 0, 255).round().astype(np.uint8))
    upright = upright.convert(how.mode)
    if upright.size != (width, height):
        upright = upright.resize((width, height), Image.Resampling.BILINEAR)
    pixels8 = np.asarray(upright, dtype=np.uint8)
    planes = pixels8[None] if how.mode == "L" else pixels8.transpose(2, 0, 1)
    return np.ascontiguousarray(planes, dtype=np.float32) / np.float32(255)


def _from_array(pixels: NDArray[Any], how: Images, shown: str) -> NDArray[np.float32]:
    channels = 1 if how.mode == "L" else 3
    if pixels.dtype.kind not in "biuf" or pixels.ndim not in (2, 3):
        raise DataError(
            f"{shown} is an array of shape {pixels.shape} and type {pixels.dtype}, which is no picture",
            hint="give (height, width) or (height, width, channels), 0..255 or 0..1",
        )
    is_whole = pixels.dtype.kind in "iu"
    top = 255 if is_whole else 1
    if pixels.size == 0 or not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > top:
        raise DataError(f"{shown} has values outside 0..{top}", hint="whole numbers are 0..255, fractions 0..1")
    if pixels.shape == (channels, *how.size) and pixels.shape[-1] not in (1, 3, 4):
        return (pixels / top).astype(np.float32)
    whole = pixels.astype(np.uint8) if is_whole else (pixels * 255.0).round().astype(np.uint8)
    if whole.ndim == 3 and whole.shape[2] == 1:
        whole = whole[:, :, 0]
    if whole.ndim == 3 and whole.shape[2] not in (3, 4):
        raise DataError(
            f"{shown} is an array of shape {pixels.shape}, which is no picture",
            hint="give (height, width) or (height, width, channels), 0..255 or 0..1",
        )
    return _fitted(Image.fromarray(whole), how)
