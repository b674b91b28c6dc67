"""Files that TensorFlow cannot read, by kind, against tifffile, Pillow, pydicom."""

import io
import struct

import numpy as np
import pydicom
import pytest
import tensorflow as tf
import tifffile
from images import picture
from PIL import Image, ImageCms, ImageOps
from pydicom.uid import ExplicitVRLittleEndian

from tf_dpred.config import Config, PixelConfig
from tf_dpred.data import decoders, image_files, listing, packed, places, value_range
from tf_dpred.data.pixels import Pixels
from tf_dpred.errors import Refused

COLOUR = Image.fromarray(picture(20, 28))
RGB = np.asarray(COLOUR)
RANDOM = np.random.default_rng(0)
DEEP = RANDOM.integers(0, 65536, (20, 28), dtype=np.uint16)
STACK = RANDOM.integers(0, 4096, (5, 20, 28), dtype=np.uint16)
FLOATS = RANDOM.normal(size=(20, 28, 3)).astype(np.float32)
OPACITY = np.dstack([RGB, RGB[..., 1]])
LAST = np.moveaxis(STACK, 0, -1)


def tiff(values, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


def pages_of(*images):
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for image in images:
            writer.write(image)
    return file.getvalue()


def by_pillow(image, kind="TIFF", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def arrays(save, *args, **kwargs):
    file = io.BytesIO()
    save(file, *args, **kwargs)
    return file.getvalue()


def dicom(values, kind="MONOCHROME2", bits=12, **fields):
    found = pydicom.Dataset()
    found.file_meta = pydicom.dataset.FileMetaDataset()
    found.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found.SOPClassUID = found.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4"
    found.SOPInstanceUID = found.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    colours = values.ndim > 2 and values.shape[-1] == 3
    frames = values.ndim - (3 if colours else 2)
    found.Rows, found.Columns = values.shape[frames : frames + 2]
    if frames:
        found.NumberOfFrames = values.shape[0]
    found.SamplesPerPixel = 3 if colours else 1
    if colours:
        found.PlanarConfiguration = 0
    found.PhotometricInterpretation = kind
    found.BitsAllocated = 8 * values.itemsize
    found.BitsStored, found.HighBit = bits, bits - 1
    found.PixelRepresentation = int(values.dtype.kind == "i")
    for name, value in fields.items():
        setattr(found, name, value)
    found.PixelData = values.tobytes()
    file = io.BytesIO()
    pydicom.dcmwrite(file, found, enforce_file_format=True)
    return file.getvalue()


def heic(image, **options):
    pillow_heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, quality=-1, chroma=444, **options)
    return file.getvalue()


def lab():
    profile = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.applyTransform(
        COLOUR, ImageCms.buildTransform(*profile, "RGB", "LAB")
    )


TWELVE = STACK[0]
SIGNED = (TWELVE.astype(np.int16) - 1024)[..., None]
BY_PILLOW = np.asarray(COLOUR.convert("CMYK").convert("RGB"))
MASK = np.asarray(COLOUR.convert("1"))[..., None]
# Bytes, what they hold, and the largest difference.
KINDS = {
    "TIFF": (tiff(RGB, photometric="rgb"), RGB, 0),
    "TIFF, LZW": (by_pillow(COLOUR, compression="tiff_lzw"), RGB, 0),
    "TIFF, deflate": (tiff(RGB, photometric="rgb", compression="zlib"), RGB, 0),
    "TIFF, tiles": (tiff(RGB, photometric="rgb", tile=(16, 16)), RGB, 0),
    "TIFF, planes": (
        tiff(np.moveaxis(RGB, -1, 0), photometric="rgb", planarconfig="separate"),
        RGB,
        0,
    ),
    "TIFF, big-endian": (tiff(DEEP, byteorder=">"), DEEP, 0),
    "BigTIFF": (tiff(DEEP, bigtiff=True), DEEP, 0),
    "TIFF, 16-bit gray": (tiff(DEEP), DEEP, 0),
    "TIFF, 16-bit RGB": (
        tiff(LAST[..., :3].copy(), photometric="rgb"),
        LAST[..., :3],
        0,
    ),
    "TIFF, white is 0": (
        tiff(255 - RGB[..., 0], photometric="miniswhite"),
        RGB[..., 0],
        0,
    ),
    "TIFF, 1 bit": (by_pillow(COLOUR.convert("1")), MASK * np.uint8(255), 0),
    "TIFF, palette": (
        by_pillow(COLOUR.quantize(9)),
        np.asarray(COLOUR.quantize(9).convert("RGB")),
        0,
    ),
    "TIFF, CMYK": (by_pillow(COLOUR.convert("CMYK")), BY_PILLOW, 0),
    "TIFF, Lab": (by_pillow(lab()), np.asarray(lab().convert("RGB")), 0),
    "TIFF, JPEG inside": (
        by_pillow(COLOUR, compression="jpeg", quality=95),
        np.asarray(
            Image.open(io.BytesIO(by_pillow(COLOUR, compression="jpeg", quality=95)))
        ),
        2,
    ),
    "TIFF, opacity": (tiff(OPACITY, photometric="rgb", extrasamples=(2,)), OPACITY, 0),
    "TIFF, floats": (tiff(FLOATS[..., 0]), FLOATS[..., 0], 0),
    "TIFF, 5 channels (CYX)": (tiff(STACK, metadata={"axes": "CYX"}), LAST, 0),
    "TIFF, 5 channels (ImageJ)": (
        tiff(STACK, imagej=True, metadata={"axes": "CYX"}),
        LAST,
        0,
    ),
    "TIFF, 5 channels (OME)": (
        tiff(STACK, ome=True, metadata={"axes": "CYX"}),
        LAST,
        0,
    ),
    "TIFF, 5 samples": (
        tiff(LAST.copy(), photometric="minisblack", planarconfig="contig"),
        LAST,
        0,
    ),
    "TIFF, 5 pages": (tiff(STACK), STACK[0], 0),
    "npy [H, W]": (arrays(np.save, DEEP), DEEP, 0),
    "npy [H, W, C]": (arrays(np.save, LAST), LAST, 0),
    "npy [C, H, W]": (arrays(np.save, STACK), LAST, 0),
    "npy [N, H, W, C]": (arrays(np.save, RGB[None]), RGB, 0),
    "npy [N, H, W]": (arrays(np.save, np.repeat(STACK, 8, 0)), STACK[0], 0),
    "npy, Fortran's order": (arrays(np.save, np.asfortranarray(LAST)), LAST, 0),
    "npy, big-endian": (arrays(np.save, LAST.astype(">u2")), LAST, 0),
    "npy, float64": (arrays(np.save, FLOATS.astype(np.float64)), FLOATS, 0),
    "npz": (arrays(np.savez, x=LAST, y=np.arange(3)), LAST, 0),
    "npz, compressed": (arrays(np.savez_compressed, image=RGB), RGB, 0),
    "DICOM": (dicom(TWELVE), TWELVE, 0),
    "DICOM, frames": (dicom(STACK), STACK[0], 0),
    "DICOM, RGB": (dicom(RGB, "RGB", 8), RGB, 0),
    "DICOM, dark is high": (dicom(4095 - TWELVE, "MONOCHROME1"), TWELVE, 0),
    "DICOM, Hounsfield": (
        dicom(TWELVE, RescaleSlope=1, RescaleIntercept=-1024),
        SIGNED.astype(np.float32),
        0,
    ),
    "AVIF": (
        by_pillow(COLOUR, "AVIF", quality=95),
        np.asarray(Image.open(io.BytesIO(by_pillow(COLOUR, "AVIF", quality=95)))),
        0,
    ),
    "HEIC": (heic(COLOUR), RGB, 6),
}


def values_of(content, page=None, **options):
    options = {"channels": None, "joined": False, "max_pixels": 10**6, **options}
    found = decoders.decoded(io.BytesIO(content), page, **options)
    if found.startswith(packed.REFUSAL):
        return found[len(packed.REFUSAL) :].decode()
    _, kind, _, channels, height, width = struct.unpack("<4sBBHII", found[:16])
    dtype = packed.TYPES[kind].as_numpy_dtype
    return np.frombuffer(found[16:], dtype).reshape(height, width, channels)


@pytest.mark.parametrize("kind", KINDS)
def test_decoded__every_kind(kind):
    content, expected, most = KINDS[kind]
    expected = expected if expected.ndim == 3 else expected[..., None]
    found = values_of(content)
    assert found.shape == expected.shape, found
    difference = np.abs(found.astype(np.float64) - expected)
    print(f"{kind}: {len(content):,} bytes, {found.dtype}, {difference.max():g}")
    assert difference.max() <= most


@pytest.mark.parametrize("number", range(1, 9))
def test_tiff__orientation(number):
    content = tiff(RGB, photometric="rgb", extratags=[(274, "H", 1, number, True)])
    turned = Image.open(io.BytesIO(by_pillow(COLOUR, "PNG", exif=exif(number))))
    np.testing.assert_array_equal(values_of(content), ImageOps.exif_transpose(turned))


def exif(number):
    found = Image.Exif()
    found[0x0112] = number
    return found


def test_tiff__colours_that_are_multiplied_by_their_opacity():
    half = np.dstack([RGB // 2, np.full((20, 28), 127, np.uint8)])
    found = values_of(tiff(half, photometric="rgb", extrasamples=(1,)))
    assert np.abs(found[..., :3] - (RGB // 2) * (255 / 127)).max() <= 0.5


def test_pages__first_each_or_channels():
    content = tiff(STACK)
    for page, plane in enumerate(STACK):
        np.testing.assert_array_equal(values_of(content, page)[..., 0], plane)
    np.testing.assert_array_equal(values_of(content, joined=True), LAST)
    assert values_of(content, 5) == "5 pages, and no number 6"
    other = pages_of(STACK[0], STACK[1], STACK[0, :9, :9])
    assert values_of(other, 2).shape == (9, 9, 1)
    assert "2 sizes" in values_of(other, joined=True)


def test_pages__of_channels_and_depths():
    """Z is a page, C a channel: what tifffile reads of ImageJ's hyperstacks."""
    volume = RANDOM.integers(0, 9, (4, 2, 20, 28), dtype=np.uint16)
    content = tiff(volume, imagej=True, metadata={"axes": "ZCYX"})
    for page in range(4):
        expected = np.moveaxis(volume[page], 0, -1)
        np.testing.assert_array_equal(values_of(content, page), expected)


def test_npy__the_channels_that_are_asked_for_say_the_axes():
    tall = RANDOM.integers(0, 9, (30, 20, 40), dtype=np.uint16)
    content = arrays(np.save, tall)
    assert values_of(content).shape == (20, 40, 1)  # a stack of 30 gray images
    assert values_of(content, channels=40).shape == (30, 20, 40)
    assert values_of(content, channels=30).shape == (20, 40, 30)


BAD = {
    "cut TIFF": (tiff(DEEP)[:300], "a TIF file that cannot be decoded"),
    "cut npy": (arrays(np.save, DEEP)[:300], "a NPY file that cannot be decoded"),
    "npy of text": (arrays(np.save, np.array(["a"])), "accepted: numbers"),
    "npy of objects": (
        arrays(np.save, np.array([{}], object), allow_pickle=True),
        "cannot be decoded",
    ),
    "npy of numbers": (
        arrays(np.save, np.arange(3)),
        "an array of shape [3], accepted",
    ),
    "npz of several": (
        arrays(np.savez, a=RGB, b=RGB),
        "2 arrays (a, b), accepted: one",
    ),
    "cut npz": (arrays(np.savez, a=RGB)[:90], "a NPZ file that cannot be decoded"),
    "DICOM without image": (dicom(TWELVE)[:400], "DCM file that cannot be decoded"),
    "complex TIFF": (
        tiff(FLOATS[..., 0].astype(np.complex64)),
        "accepted: real numbers",
    ),
    "too large": (
        tiff(np.zeros((1001, 1000), np.uint8)),
        "1000 x 1001 pixels, accepted",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_decoded__bad_files_are_one_line(kind):
    content, words = BAD[kind]
    found = values_of(content)
    assert isinstance(found, str) and words in found and "\n" not in found


def test_decoded__without_its_package(monkeypatch, tmp_path):
    decoders._has.cache_clear()
    kinds = [kind._replace(package="no_such_package") for kind in decoders.KINDS]
    monkeypatch.setattr(decoders, "KINDS", kinds)
    words = "TIF: pip install 'tf-dpred[tiff]' to read it"
    assert values_of(tiff(RGB, photometric="rgb")) == words
    (tmp_path / "a.tif").write_bytes(tiff(DEEP))
    (tmp_path / "b.png").write_bytes(by_pillow(COLOUR, "PNG"))
    found = listing.Listing(tmp_path)
    assert found.files == ["b.png"]
    assert found.left_out() == "1 .tif (pip install 'tf-dpred[tiff]')"
    decoders._has.cache_clear()


def test_decoded__other_files_are_left_to_tensorflow():
    for kind in ("JPEG", "PNG", "BMP", "GIF", "WEBP"):
        content = io.BytesIO(by_pillow(COLOUR, kind))
        options = {"channels": None, "joined": False, "max_pixels": 10**6}
        assert decoders.decoded(content, None, **options) is None


# In the pipeline ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"channels": 5, "value_range": "12bit"}, LAST),
        ({"pages": "first", "value_range": "12bit"}, np.stack([STACK[0]] * 3, -1)),
        ({"channels": 1, "value_range": "12bit"}, STACK[0][..., None]),
    ],
)
def test_read__values_become_pixels(settings, expected, tmp_path):
    joined = settings.get("channels") == 5
    config = PixelConfig(**({"pages": "channels"} if joined else {}), **settings)
    pixels, path = Pixels(config), tmp_path / "x.tif"
    path.write_bytes(tiff(STACK))
    found = image_files.decode(image_files.read(str(path), pixels), pixels).numpy()
    assert np.abs(found - expected / 4095 * 255).max() <= 0.501
    assert image_files.problem(path, pixels) is None


def test_problem__says_which_channels(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, LAST)
    found = image_files.problem(path, Pixels(PixelConfig(value_range="12bit")))
    assert found == "5 channels, accepted: 1 or 3 (--channels)"
    np.save(path, FLOATS)
    found = image_files.problem(path)
    assert found == "signed or floating-point values, accepted: with --value_range"
    path.unlink()
    assert image_files.problem(path).endswith("; No such file or directory")


def settled(folder, **given):
    config = Config.from_dict(given)
    files = sorted(path.name for path in folder.iterdir())
    return value_range.settled(
        config, value_range.samples(folder, files, config.pixels)
    ).pixels


def test_settled__channels_and_ranges_of_each(tmp_path):
    for index in range(3):
        stack = STACK * np.array([1, 2, 4, 8, 16], np.uint16)[:, None, None]
        (tmp_path / f"{index}.tif").write_bytes(tiff(stack, metadata={"axes": "CYX"}))
    found = settled(tmp_path, value_range="percentile")
    assert found.channels == 5 and len(found.ends) == 5
    highs = np.array([high for _, high in found.ends])
    np.testing.assert_allclose(highs / highs[0], [1, 2, 4, 8, 16], rtol=0.01)
    (tmp_path / "other.tif").write_bytes(tiff(DEEP))
    with pytest.raises(Refused, match=r"images of 1 in other\.tif, 5 in 2\.tif"):
        settled(tmp_path)


@pytest.mark.parametrize(
    ("low", "high", "name"), [(0, 1, "0,1"), (0, 250, "0,255"), (-2, 6, "-2,6")]
)
def test_settled__floats(low, high, name, tmp_path):
    values = np.linspace(low, high, 20 * 28).reshape(20, 28).astype(np.float32)
    np.save(tmp_path / "a.npy", values)
    assert settled(tmp_path).value_range == name
    np.save(tmp_path / "b.npy", DEEP)
    with pytest.raises(Refused, match="signed or floating-point values"):
        settled(tmp_path)


def test_listing__arrays_beside_images_are_none(tmp_path):
    np.save(tmp_path / "features.npy", DEEP)
    assert listing.Listing(tmp_path).files == ["features.npy"]
    COLOUR.save(tmp_path / "a.jpg")
    found = listing.Listing(tmp_path)
    assert found.files == ["a.jpg"]
    assert found.left_out() == "arrays beside images: 1 (features.npy)"


def test_places__every_page(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff(STACK))
    (tmp_path / "b.tif").write_bytes(tiff(DEEP))
    found = places.open_places(str(tmp_path), by_page=True)
    assert found.files == [*(f"a.tif#{n}" for n in range(1, 6)), "b.tif"]
    content = image_files.read(str(tmp_path / "a.tif#3"))
    pixels = Pixels(PixelConfig(value_range="12bit"))
    image = image_files.decode(content, pixels).numpy()
    assert np.abs(image[..., 0] - STACK[2] / 4095 * 255).max() <= 0.501
    assert bool(
        image_files.unless_special(tf.constant(str(tmp_path / "a.tif#3"))) != ""
    )
