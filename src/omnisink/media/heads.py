"""Facts in the first bytes of a file: formats that are refused by name, and the length of the whole file."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

#: Containers and raw streams that FFmpeg may read. Playlists, descriptions of streams, lists of files, scripts, text
#: drawn as pictures and devices are left out: they open other files or addresses, or are not recordings. So are
#: FFmpeg's readers of still pictures, some of which follow patterns in file names; Pillow reads pictures.
CONTAINERS = (
    "aac,ac3,ac4,aiff,amr,amrnb,amrwb,ape,asf,asf_o,au,av1,avi,avs2,avs3,caf,cavsvideo,dirac,dnxhd,dsf,dts,dtshd,"
    "dv,eac3,evc,flac,flv,gsm,gxf,h261,h263,h264,hevc,iamf,iff,ircam,ivf,kux,latm,lc3,live_flv,loas,m4v,matroska,"
    "webm,mjpeg,mjpeg_2000,mlp,mov,mp4,mp3,mpc,mpc8,mpeg,mpegts,mpegvideo,mpjpeg,mxf,nistsphere,nut,obu,ogg,oma,"
    "qcp,qoa,rm,shn,sox,tak,truehd,tta,vc1,vc1test,voc,vvc,w64,wav,wtv,wv,xwma,yuv4mpegpipe"
)

#: Raw streams: frames one after another, without times.
RAW_STREAMS = frozenset(
    {"av1", "avs2", "avs3", "cavsvideo", "dirac", "evc", "h261", "h263", "h264", "hevc", "m4v", "mjpeg", "mjpeg_2000"}
    | {"mpegvideo", "mpjpeg", "obu", "vc1", "vvc"}
)

#: How files begin that are taken for media and are not, or not by omnisink; after spaces and a byte order mark.
_TEXTS = (
    (b"#EXTM3U", "an HLS playlist"),
    (b"ffconcat", "a list of files for FFmpeg's concat"),
    (b"v=0", "a session description (SDP)"),
    (b";FFMETADATA", "a list of metadata"),
    (b"[playlist]", "a playlist"),
    (b"#!", "a script"),
    (b"%!PS", "PostScript"),
    (b"%PDF", "a PDF document"),
    (b"{\\rtf", "a text document"),
)
#: How WMA and WMV files begin, and the object that holds their size.
_ASF_HEADER = b"\x30\x26\xb2\x75"
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
#: Containers of sound whose head says how long it is.
_SAY_LENGTH = {
    "mov",
    "wav",
    "w64",
    "flac",
    "aiff",
    "caf",
    "avi",
    "au",
    "ape",
    "wv",
    "tta",
    "tak",
    "dsf",
    "matroska",
    "flv",
}
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def refused_kind(head: bytes) -> str | None:
    """Return the name of a format that omnisink does not read, by the first 512 bytes; None if they do not show it."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for begin, kind in _TEXTS:
        if text.startswith(begin):
            return kind
    if text[:1] == b"<":
        low = text.lower()
        for word, kind in ((b"<svg", "an SVG drawing"), (b"<mpd", "a DASH manifest"), (b"<smil", "a SMIL playlist")):
            if word in low:
                return kind
        return "a page or a document in XML or HTML"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF and b"avif" not in head[8:64] and b"avis" not in head[8:64]:
        return "a HEIF picture (HEIC); save it as JPEG or PNG"
    return None


def expected_size(file: Path) -> int | None:
    """Return how many bytes a file should have by its own header; None where it does not say.

    WAV, AVI and W64 do, WebM and Matroska, WMA and WMV, and CAF.

    FFmpeg believes what is there, so a file that was cut off would pass for a shorter one.
    """
    with file.open("rb") as opened:
        head = opened.read(4096)
    if head[:4] == b"RIFF":
        said = int.from_bytes(head[4:8], "little")
        # Programs that write to a pipe leave the size open, as 0 or as the largest number.
        return said + 8 if 0 < said < 0xFFFFFF00 else None
    if head[:4] == b"\x1aE\xdf\xa3":
        return _matroska_size(head)
    if head[:4] == b"riff":  # W64 has identifiers of sixteen bytes.
        return int.from_bytes(head[16:24], "little") or None
    if head[:4] == b"caff":
        return _caf_size(file)
    properties = head.find(_ASF_PROPERTIES) if head[:4] == _ASF_HEADER else -1
    said = int.from_bytes(head[properties + 40 : properties + 48], "little") if properties >= 0 else 0
    return said or None


def _caf_size(file: Path) -> int | None:
    """Add up the chunks of a CAF file up to the sound; its length may be open in a recording."""
    with file.open("rb") as opened:
        at = opened.seek(8)
        while len(head := opened.read(12)) == 12:
            size = int.from_bytes(head[4:], "big")
            if head[:4] == b"data":
                return None if size >= 1 << 63 else at + 12 + size
            at = opened.seek(at + 12 + min(size, 1 << 40))
    return None


def _matroska_size(head: bytes) -> int | None:
    """Add up the EBML header and the segment; a recording to a stream leaves the size of the segment open."""
    length = _ebml_number(head, 4)
    if length is None:
        return None
    at = 4 + length[1] + length[0]
    if head[at : at + 4] != b"\x18\x53\x80\x67":
        return None
    segment = _ebml_number(head, at + 4)
    return None if segment is None else at + 4 + segment[1] + segment[0]


def _ebml_number(data: bytes, at: int) -> tuple[int, int] | None:
    """Read a number of variable length: its value, and its bytes; None where it is open or missing."""
    if at >= len(data) or data[at] == 0:
        return None
    width = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + width], "big") & ((1 << 7 * width) - 1)
    return None if value == (1 << 7 * width) - 1 else (value, width)


def is_motion_jpeg(file: BinaryIO) -> bool:
    """Tell a raw stream of JPEG frames from one JPEG.

    Right after the end of the first the next begins, and no list of views (MPF, as phones write it) says why.

    Parameters
    ----------
    file : binary file
        At its beginning.
    """
    if file.read(2) != b"\xff\xd8":
        return False
    while True:
        mark = file.read(4)
        if len(mark) < 4 or mark[0] != 0xFF:
            return False
        body = int.from_bytes(mark[2:], "big") - 2
        if mark[1] == 0xDA:
            break
        inside = file.read(max(body, 0))
        if mark[1] == 0xE2 and inside.startswith(b"MPF\0"):
            return False
    # Compressed data never holds the end mark by chance.
    tail = b""
    while block := file.read(1 << 20):
        tail += block
        end = tail.find(b"\xff\xd9")
        if end >= 0:
            after = tail[end + 2 : end + 5] + file.read(3)
            return after.startswith(b"\xff\xd8\xff")
        tail = tail[-1:]
    return False


def says_length(file: Path, container: str) -> bool:
    """Tell whether a sound file says itself how long it is; else FFmpeg guesses from its bit rate, which may vary.

    Parameters
    ----------
    file : Path
        The file.
    container : str
        FFmpeg's name of its format.
    """
    if container == "mp3":
        with file.open("rb") as opened:
            head = opened.read(10)
            if head[:3] == b"ID3":
                # A tag, with a cover perhaps, comes first; its length has seven bits a byte.
                opened.seek(10 + sum((byte & 0x7F) << 7 * (3 - i) for i, byte in enumerate(head[6:10])))
            first = head + opened.read(4096)
        return any(mark in first for mark in (b"Xing", b"Info", b"VBRI"))
    return container.split(",")[0] in _SAY_LENGTH
