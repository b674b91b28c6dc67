"""Files that TensorFlow cannot read: TIFF, NumPy's, DICOM, HEIC and AVIF.

Each kind is one function (`_pages`), from an open file to its pages, which are images
or planes of one. The packages that decode are extras, but for NumPy; without one of
them a file is left out with a line that says what to install. They run in the threads
that prepare images.
"""

from __future__ import annotations

import functools
import importlib
import io
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from tf_dpred.data import packed
from tf_dpred.data.rewritten import values_of

MOST_CHANNELS = 16
"""An axis of an array that is no longer than this is that of the channels."""

# Names of the images in an npz file of several arrays.
NAMES = ("image", "images", "x", "data", "arr_0")

_NAME_OF_PAGE = re.compile(r"(.*\.(?:tiff?|npy|npz|dcm|dicom))#([1-9]\d*)", re.I | re.S)


class Unusable(Exception):
    """Says why a file holds no image that can be used."""


class Page(NamedTuple):
    """One image of a file, not decoded yet.

    Attributes:
      size: height and width.
      values: decodes it: [H, W] or [H, W, c], and whether the last channel is opacity.
    """

    size: tuple[int, int]
    values: Callable[[], tuple[np.ndarray, bool]]


class Kind(NamedTuple):
    """Files of one kind.

    Attributes:
      extensions: of their names.
      begins: whether the first bytes are those of such a file.
      package: that decodes them, to be imported.
      install: what to install for it.
      pages: of an open file; the number of channels that is wanted, or None.
    """

    extensions: tuple[str, ...]
    begins: Callable[[bytes], bool]
    package: str
    install: str
    pages: Callable[[BinaryIO, int | None], Sequence[Page]]


def file_of(path: str) -> tuple[str, int | None]:
    """The file and the page, from 0, of a name such as "stack.tif#3"."""
    found = _NAME_OF_PAGE.fullmatch(path)
    return (found[1], int(found[2]) - 1) if found else (path, None)


def kind_of(head: bytes) -> Kind | None:
    """The kind of a file by its first bytes; None: not one of these."""
    return next((kind for kind in KINDS if kind.begins(head)), None)


def missing(extension: str) -> str | None:
    """What to install before files of this extension can be read; None: nothing."""
    kind = next((kind for kind in KINDS if extension in kind.extensions), None)
    return kind.install if kind is not None and not _has(kind) else None


@functools.cache
def _has(kind: Kind) -> bool:
    try:
        importlib.import_module(kind.package)
    except ImportError:
        return False
    return True


def decoded(
    file: BinaryIO,
    page: int | None,
    *,
    channels: int | None,
    joined: bool,
    max_pixels: int,
) -> bytes | None:
    """An image of an open file, `packed`, or a refusal; None: of no kind of these.

    Args:
      file: at its start; it can be searched.
      page: from 0; None: the first.
      channels: that an image has, where it is known; it decides what the axes of an
        array are.
      joined: whether the pages of a file are the channels of one image.
      max_pixels: that are decoded.
    """
    head = file.read(HEAD)
    kind = kind_of(head)
    if kind is None:
        return None
    name = kind.extensions[0][1:].upper()
    if not _has(kind):
        return packed.refusal(f"{name}: pip install {kind.install!r} to read it")
    try:
        file.seek(0)
        pages = kind.pages(file, channels)
        if joined:
            chosen = pages
        else:
            chosen = pages[page or 0 : (page or 0) + 1]
        if not chosen:
            raise Unusable(f"{len(pages)} pages, and no number {(page or 0) + 1}")
        sizes = {page.size for page in chosen}
        if len(sizes) > 1:
            raise Unusable(f"pages of {len(sizes)} sizes, which are no channels of one")
        ((height, width),) = sizes
        if height * width * len(chosen) > max_pixels:
            raise Unusable(
                f"{width} x {height} pixels, accepted: at most {max_pixels:,} in all"
            )
        planes = [page.values() for page in chosen]
        if len(planes) == 1:
            return packed.pack(*planes[0])
        flat = [values.reshape(height, width, -1) for values, _ in planes]
        return packed.pack(np.concatenate(flat, axis=-1))
    except Unusable as error:
        return packed.refusal(str(error))
    except Exception as error:  # whatever a damaged file leads to
        words = f"{type(error).__name__}: {error}"
        return packed.refusal(f"a {name} file that cannot be decoded ({words:.200})")


def count(path: str) -> int:
    """Pages of a file; 1 where it cannot be read, which whoever decodes it says."""
    try:
        with open(path, "rb") as file:
            kind = kind_of(file.read(HEAD))
            file.seek(0)
            return len(kind.pages(file, None)) if kind and _has(kind) else 1
    except Exception:
        return 1


# TIFF --------------------------------------------------------------------------------


def _tiff(file: BinaryIO, channels: int | None) -> list[Page]:
    import tifffile

    tiff = tifffile.TiffFile(file)
    return [page for series in tiff.series for page in _of_series(series, file)]


def _of_series(series: Any, file: BinaryIO) -> list[Page]:
    """The images of a series: channels (C) and samples (S) are channels of one."""
    axes, shape, key = series.axes, series.shape, series.keyframe
    if "Y" not in axes or "X" not in axes:
        raise Unusable(f"a TIFF file of axes {axes}")
    size = shape[axes.index("Y")], shape[axes.index("X")]
    outer = len(axes) - len(key.axes)
    # Else a part of a page, or several, are one image.
    by_page = axes[outer:] == key.axes and len(series.pages) == math.prod(shape[:outer])
    paged = [place for place, axis in enumerate(axes) if axis not in "YXSC"]

    def page(index: tuple[int, ...]) -> Page:
        where: list[Any] = [slice(None)] * len(axes)
        for place, number in zip(paged, index, strict=True):
            where[place] = number
        kept = "".join(a for i, a in enumerate(axes) if i not in paged)

        def values() -> tuple[np.ndarray, bool]:
            if by_page:
                numbers = np.arange(math.prod(shape[:outer])).reshape(shape[:outer])
                chosen = numbers[tuple(where[:outer])].ravel()
                if _is_pillows(key):
                    return _of_tiff_by_pillow(file, series.pages[int(chosen[0])].index)
                planes = [series.pages[int(n)].asarray() for n in chosen]
                array = np.stack(planes).reshape([shape[axes.index(a)] for a in kept])
            else:
                array = series.asarray()[tuple(where)]
            order = [kept.index("Y"), kept.index("X")]
            order += [i for i, a in enumerate(kept) if a not in "YX"]
            return _shown(key, array.transpose(order).reshape(*size, -1))

        turned = _orientation(key) > 4
        return Page(size[::-1] if turned else size, values)

    return [page(index) for index in np.ndindex(*(shape[place] for place in paged))]


def _is_pillows(key: Any) -> bool:
    """Whether a page has colours that Pillow turns into RGB: CMYK, YCbCr, Lab."""
    photometric = key.photometric.name
    of_jpeg = photometric == "YCBCR" and key.compression.name == "JPEG"
    return photometric in ("SEPARATED", "YCBCR", "CIELAB", "ICCLAB") and not of_jpeg


def _of_tiff_by_pillow(file: BinaryIO, number: int) -> tuple[np.ndarray, bool]:
    from PIL import TiffImagePlugin

    file.seek(0)
    image = TiffImagePlugin.TiffImageFile(file)
    image.seek(number)
    return values_of(image)


def _shown(key: Any, values: np.ndarray) -> tuple[np.ndarray, bool]:
    """Values [H, W, c] of a page as they are shown, and whether there is opacity."""
    photometric, bits = key.photometric.name, key.bitspersample
    if values.dtype.kind not in "buif":
        raise Unusable(f"values of type {values.dtype}, accepted: real numbers")
    if photometric == "PALETTE":
        table = np.asarray(key.colormap)
        colours = table[:, values[..., 0]].transpose(1, 2, 0)
        return _upright(key, (colours >> 8).astype(np.uint8)), False
    if values.dtype == np.uint8 and bits < 8:
        values = values * np.uint8(255 // (2**bits - 1))
    if photometric == "MINISWHITE":
        if values.dtype.kind == "b":
            values = ~values
        else:
            whole = values.dtype.kind == "u"
            top = 2 ** max(bits, 8) - 1 if whole else values.max()
            values = (top - values).astype(values.dtype)
    count = 3 if photometric in ("RGB", "YCBCR") else 1
    extra = [int(kind) for kind in key.extrasamples]
    opaque = len(extra) == 1 and extra[0] in (1, 2) and values.shape[-1] == count + 1
    if opaque and extra[0] == 1:  # colours are multiplied by it
        most = 1.0 if values.dtype.kind == "f" else np.iinfo(values.dtype).max
        opacity = np.maximum(values[..., -1:].astype(np.float64), 1e-9)
        plain = np.minimum(values[..., :-1] * (most / opacity), most)
        if values.dtype.kind != "f":
            plain = np.rint(plain)
        values = np.concatenate([plain.astype(values.dtype), values[..., -1:]], -1)
    return _upright(key, values), opaque


def _orientation(key: Any) -> int:
    tag = key.tags.get(274)
    return int(tag.value) if tag is not None and tag.value in range(1, 9) else 1


def _upright(key: Any, values: np.ndarray) -> np.ndarray:
    """Undoes the orientation that a page says, as `orientation.turn_upright`."""
    number = _orientation(key)
    if number >= 5:
        values = values.swapaxes(0, 1)
    if number in (2, 3, 6, 7):
        values = values[:, ::-1]
    if number in (3, 4, 7, 8):
        values = values[::-1]
    return values


# NumPy -------------------------------------------------------------------------------


def _npy(file: BinaryIO, channels: int | None) -> list[Page]:
    if isinstance(file, io.BufferedReader):  # of a disk: read what is used
        return _of_array(np.load(file.name, "r", allow_pickle=False), channels)
    return _of_array(np.load(file, allow_pickle=False), channels)


def _npz(file: BinaryIO, channels: int | None) -> list[Page]:
    with np.load(file, allow_pickle=False) as arrays:
        names = list(arrays)
        known = [name for name in NAMES if name in names]
        if len(names) != 1 and not known:
            raise Unusable(
                f"{len(names)} arrays ({', '.join(names[:5])}), accepted: one alone, "
                f"or one called {', '.join(NAMES)}"
            )
        return _of_array(arrays[known[0] if known else names[0]], channels)


def _of_array(array: np.ndarray, channels: int | None) -> list[Page]:
    """Images [H, W], [H, W, c], [c, H, W], and stacks of them along the first axis."""
    if array.dtype.kind not in "buif":
        raise Unusable(f"values of type {array.dtype}, accepted: numbers")
    images: list[tuple[np.ndarray, int | None]]
    if array.ndim == 2:
        images = [(array, None)]
    elif array.ndim == 3 and (axis := _channel_axis(array.shape, channels)) is not None:
        images = [(array, axis)]
    elif array.ndim == 3:
        images = [(image, None) for image in array]
    elif array.ndim == 4:
        axis = _channel_axis(array.shape[1:], channels)
        images = [(image, 2 if axis is None else axis) for image in array]
    else:
        images = []
    if not images or not array.size:
        raise Unusable(
            f"an array of shape {list(array.shape)}, accepted: [height, width], "
            "[height, width, channels], [channels, height, width] or a stack of these"
        )

    def page(image: np.ndarray, axis: int | None) -> Page:
        shown = image if axis is None else np.moveaxis(image, axis, -1)
        return Page(shown.shape[:2], lambda: (np.asarray(shown), False))

    return [page(*image) for image in images]


def _channel_axis(shape: tuple[int, ...], channels: int | None) -> int | None:
    """The last axis, or the first, whichever can be that of the channels."""
    fits = (
        (lambda length: length <= MOST_CHANNELS)
        if channels is None
        else (lambda length: length == channels or (channels == 3 and length == 1))
    )
    return next((axis for axis in (2, 0) if fits(shape[axis])), None)


# DICOM -------------------------------------------------------------------------------


def _dicom(file: BinaryIO, channels: int | None) -> list[Page]:
    import pydicom

    found = pydicom.dcmread(file)
    if "Rows" not in found:
        raise Unusable("a DICOM file without an image")
    size = int(found.Rows), int(found.Columns)
    frames = int(found.get("NumberOfFrames", 1) or 1)
    return [Page(size, functools.partial(_frame, found, n)) for n in range(frames)]


def _frame(found: Any, number: int) -> tuple[np.ndarray, bool]:
    """One frame: rescaled to its unit; dark is low, whatever the file's convention.

    Source: DICOM PS3.3, C.7.6.3.1.2 (photometric interpretation), C.11.1 (modality).
    """
    from pydicom import pixels

    values = pixels.pixel_array(found, index=number)
    kind = found.PhotometricInterpretation
    if kind == "PALETTE COLOR":
        values = pixels.apply_color_lut(values, found)
        return (values >> 8).astype(
            np.uint8
        ) if values.dtype == np.uint16 else values, False
    rescaled = pixels.apply_modality_lut(values, found)
    plain = float(found.get("RescaleSlope", 1)) == 1 and not float(
        found.get("RescaleIntercept", 0)
    )
    if "ModalityLUTSequence" in found or not plain:
        values = rescaled
    if kind == "MONOCHROME1":
        if values.dtype.kind == "u":
            values = (2 ** int(found.BitsStored) - 1 - values).astype(values.dtype)
        else:
            values = values.max() + values.min() - values
    return values, False


# HEIC and AVIF -----------------------------------------------------------------------


def _heic(file: BinaryIO, channels: int | None) -> list[Page]:
    import pillow_heif

    found = pillow_heif.open_heif(file, convert_hdr_to_8bit=False)
    order = [found.primary_index]
    order += [n for n in range(len(found)) if n != found.primary_index]

    def page(image: Any) -> Page:
        width, height = image.size
        has_alpha = image.mode.partition(";")[0] in ("RGBA", "LA", "RGBa")
        return Page((height, width), lambda: (np.asarray(image), has_alpha))

    return [page(found[number]) for number in order]


def _avif(file: BinaryIO, channels: int | None) -> list[Page]:
    from PIL import AvifImagePlugin, ImageOps

    image = AvifImagePlugin.AvifImageFile(file)

    def values() -> tuple[np.ndarray, bool]:
        return values_of(ImageOps.exif_transpose(image))

    return [Page(image.size[::-1], values)]


def _is_of_brand(head: bytes, brands: tuple[bytes, ...]) -> bool:
    """Whether a file of ISO/IEC 14496-12 is of one of the brands."""
    if head[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(head[:4], "big"), len(head))
    found = [head[8:12], *(head[at : at + 4] for at in range(16, end, 4))]
    return any(brand in found for brand in brands)


HEAD = 160
"""Bytes of a file that say its kind."""

TIFF, DICOM, HEIF = (f"tf-dpred[{name}]" for name in ("tiff", "dicom", "heif"))
KINDS = (
    Kind(
        (".tif", ".tiff"),
        lambda head: head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
        "tifffile",
        TIFF,
        _tiff,
    ),
    Kind((".npy",), lambda head: head[:6] == b"\x93NUMPY", "numpy", "numpy", _npy),
    Kind((".npz",), lambda head: head[:4] == b"PK\x03\x04", "numpy", "numpy", _npz),
    Kind(
        (".dcm", ".dicom"),
        lambda head: head[128:132] == b"DICM",
        "pydicom",
        DICOM,
        _dicom,
    ),
    Kind(
        (".avif",),
        lambda head: _is_of_brand(head, (b"avif", b"avis")),
        "PIL.AvifImagePlugin",
        "pillow >= 11.3",
        _avif,
    ),
    Kind(
        (".heic", ".heif"),
        lambda head: _is_of_brand(
            head, (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1")
        ),
        "pillow_heif",
        HEIF,
        _heic,
    ),
)
EXTENSIONS = tuple(name for kind in KINDS for name in kind.extensions)
OF_SEVERAL = tuple(name for kind in KINDS[:4] for name in kind.extensions)
"""Files that may hold several images."""
