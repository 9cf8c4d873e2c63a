"""Pictures of every mode and container as a viewer shows them: on white, upright, scaled and not clipped."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from omnisink.media import AtTimes, ByFps, MediaError, Uniform, read_clip, read_image
from omnisink.media.kind import kind_of
from tests.media.media_files import numbered, numbers


@pytest.fixture
def drawing() -> Image.Image:
    """A black square on a ground that is transparent, and black below."""
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[16:48, 16:48, 3] = 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("rgba.png", "RGBA"),
        ("la.png", "LA"),
        ("palette.png", "P"),
        ("rgba.webp", "RGBA"),
        ("rgba.tiff", "RGBA"),
        ("rgba.avif", "RGBA"),
        ("rgba.ico", "RGBA"),
        ("palette.gif", "RGBA"),
    ],
)
def test_what_is_transparent_is_white(tmp_path, drawing, name, mode):
    how = {"lossless": True} if name.endswith("webp") else {}
    drawing.convert(mode).save(tmp_path / name, **how)
    pixels, _ = read_image(tmp_path / name)
    assert pixels[0, 0].min() > 250
    assert pixels[32, 32].max() < 5
    clip = read_clip(tmp_path / name)
    assert clip.frames is not None
    assert np.array_equal(clip.frames[0], pixels)


def test_a_colour_named_as_transparent_is_white(tmp_path):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = (10, 20, 30)
    Image.fromarray(pixels).save(tmp_path / "named.png", transparency=(10, 20, 30))
    read, _ = read_image(tmp_path / "named.png")
    assert read[0, 0].tolist() == [255, 255, 255]
    assert read[7, 7].tolist() == [0, 0, 0]


def test_half_transparent_is_half_way_to_white(tmp_path):
    Image.new("RGBA", (8, 8), (0, 0, 0, 128)).save(tmp_path / "half.png")
    assert read_image(tmp_path / "half.png")[0][0, 0].tolist() == pytest.approx([127] * 3, abs=1)


@pytest.mark.parametrize("name", ["moving.png", "moving.webp", "moving.gif"])
def test_frames_of_a_transparent_animation_are_on_white(tmp_path, drawing, name):
    others = [drawing.rotate(0, translate=(8 * i, 0)) for i in (1, 2)]
    drawing.save(tmp_path / name, save_all=True, append_images=others, duration=200, disposal=2, lossless=True)
    clip = read_clip(tmp_path / name, frames=Uniform(3))
    assert kind_of(tmp_path / name) == "video"
    assert clip.frames is not None
    assert clip.times == pytest.approx([0.0, 0.2, 0.4])
    for number, frame in enumerate(clip.frames):
        assert frame[0, 0].tolist() == [255, 255, 255]
        assert frame[32, 20 + 8 * number].max() < 5
        assert frame[32, 12 + 8 * number].min() > 250


@pytest.mark.parametrize(("codec", "pix_fmt"), [("png", "rgba"), ("qtrle", "argb"), ("prores_ks", "yuva444p10le")])
def test_a_transparent_video_is_on_white(tmp_path, drawing, codec, pix_fmt):
    import av

    with av.open(str(tmp_path / "v.mov"), "w") as file:
        stream = file.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, pix_fmt
        for _ in range(4):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(drawing), format="rgba")))
        file.mux(stream.encode(None))
    frames = read_clip(tmp_path / "v.mov", frames=Uniform(3)).frames
    assert frames is not None
    assert frames[:, 4, 4].min() > 245
    assert frames[:, 32, 32].max() < 10


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.avif"])
def test_moving_pictures_are_videos_and_still_ones_are_not(tmp_path, name):
    pictures = [Image.fromarray(numbered(i)) for i in range(8)]
    lasting = [100, 300, 100, 100, 500, 100, 100, 100]
    pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:], duration=lasting, quality=90)
    assert kind_of(tmp_path / name) == "video"
    clip = read_clip(tmp_path / name, frames=Uniform(8))
    assert numbers(clip.frames) == list(range(8))
    assert clip.times == pytest.approx(np.cumsum([0, *lasting[:-1]]) / 1000)
    assert clip.record.frames_total == 8
    assert numbers(read_clip(tmp_path / name, frames=AtTimes((0.0, 0.35, 0.5, 9.0))).frames) == [0, 1, 3, 7]
    assert numbers(read_clip(tmp_path / name, frames=ByFps(1)).frames) == [0, 4]
    with pytest.raises(MediaError, match="has no sound"):
        read_clip(tmp_path / name, audio_rate=16_000)
    pictures[5].save(tmp_path / f"still-{name}")
    assert kind_of(tmp_path / f"still-{name}") == "image"
    assert numbers([read_image(tmp_path / f"still-{name}")[0]]) == [5]


@pytest.mark.parametrize("name", ["s.avif", "s.gif", "s.ico", "s.bmp", "s.tiff", "s.ppm", "s.jp2", "s.pcx", "s.qoi"])
def test_stills_in_unusual_containers_are_images(tmp_path, name):
    Image.fromarray(numbered(5)).resize((160, 160)).save(tmp_path / name)
    assert kind_of(tmp_path / name) == "image"
    assert numbers([read_image(tmp_path / name)[0]]) == [5]


def test_only_the_first_page_of_a_tiff_is_a_picture(tmp_path):
    pages = [Image.fromarray(numbered(i)) for i in (3, 4)]
    pages[0].save(tmp_path / "pages.tiff", save_all=True, append_images=pages[1:])
    assert kind_of(tmp_path / "pages.tiff") == "image"
    assert numbers([read_image(tmp_path / "pages.tiff")[0]]) == [3]


RAMP = np.linspace(0, 1, 256)[None].repeat(4, 0)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("sixteen.png", (RAMP * 65535).astype(np.uint16)),
        ("sixteen.tiff", (RAMP * 65535).astype(np.uint16)),
        ("float.tiff", RAMP.astype(np.float32)),
        ("float-of-bytes.tiff", (RAMP * 255).astype(np.float32)),
        ("measured.tiff", (RAMP * 4000 - 1000).astype(np.float32)),
        ("four-bytes.tiff", (RAMP * 65535).astype(np.int32)),
        ("four-bytes-low.tiff", (RAMP * 255).astype(np.int32)),
    ],
)
def test_deep_pictures_are_scaled_and_not_clipped(tmp_path, name, values):
    Image.fromarray(values).save(tmp_path / name)
    pixels, _ = read_image(tmp_path / name)
    assert np.abs(pixels[0, :, 0].astype(int) - np.arange(256)).max() <= 1


def test_a_dark_deep_picture_stays_dark(tmp_path):
    Image.fromarray(np.full((4, 4), 6553, np.uint16)).save(tmp_path / "dark.png")
    assert read_image(tmp_path / "dark.png")[0][0, 0].tolist() == pytest.approx([25] * 3, abs=1)


def test_samples_of_a_picture_that_are_not_numbers_are_refused(tmp_path):
    values = RAMP.astype(np.float32)
    values[2, 7] = np.nan
    Image.fromarray(values).save(tmp_path / "nan.tiff")
    with pytest.raises(MediaError, match=r"nan\.tiff: .*not numbers"):
        read_image(tmp_path / "nan.tiff")


def test_a_picture_for_the_press_keeps_its_colours(tmp_path):
    Image.new("RGB", (32, 32), (250, 10, 10)).convert("CMYK").save(tmp_path / "press.jpg", quality=95)
    assert read_image(tmp_path / "press.jpg")[0][8, 8].tolist() == pytest.approx([250, 10, 10], abs=6)


@pytest.mark.parametrize("name", ["turned.png", "turned.webp", "turned.tiff", "turned.jpg"])
def test_pictures_are_turned_as_their_exif_says(tmp_path, name):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(numbered(5)).save(tmp_path / name, exif=exif)
    pixels, record = read_image(tmp_path / name)
    assert numbers([np.rot90(pixels)]) == [5]
    assert (record.width, record.height) == (96, 160)


@pytest.mark.parametrize("size", [(1, 400), (400, 1), (1, 1), (3, 200)])
def test_thin_pictures_keep_their_shape(tmp_path, size):
    Image.new("RGB", size, (255, 0, 0)).save(tmp_path / "thin.png")
    pixels, _ = read_image(tmp_path / "thin.png")
    assert pixels.shape == (size[1], size[0], 3)
    assert (pixels == (255, 0, 0)).all()


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        ("a.pdf", b"%PDF-1.7 ...", "a PDF document"),
        ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        ("a.heic", b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "a HEIF picture"),
    ],
)
def test_what_is_no_picture_for_us_is_refused_by_name(tmp_path, name, content, what):
    (tmp_path / name).write_bytes(content + bytes(600))
    for read in (read_image, read_clip, kind_of):
        with pytest.raises(MediaError, match=f"{name}: .*{what}"):
            read(tmp_path / name)
