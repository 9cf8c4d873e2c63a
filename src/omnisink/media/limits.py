"""Limits on what one file may ask for. A file that asks for more is refused before the memory is taken."""

from __future__ import annotations

#: Longest file that is read unless the caller says otherwise, in seconds.
MAX_SECONDS = 4 * 3600.0
#: Most pixels of one frame or picture. 8192 x 8192, or 8K video twice.
MAX_FRAME_PIXELS = 2**26
#: Most pixels of all kept frames together (RGB: 384 MiB); frames are scaled down while decoding so that they fit.
MAX_KEPT_PIXELS = 2**27
#: Most frames of a video: four hours at 240 a second.
MAX_FRAMES = 4 * 3600 * 240
#: Most channels of sound. FFmpeg's own layouts end at 24.
MAX_CHANNELS = 32
#: Lowest and highest rate of stored sound, in samples per second.
MIN_RATE, MAX_RATE = 1_000, 768_000
#: Largest sample that is taken for sound: full scale is 1, and programs that forget to scale write up to 2**31.
MAX_SAMPLE = 2.0**31
