"""The errors omnisink raises on purpose, so that a caller can catch them by one name."""


class OmnisinkError(Exception):
    """Something omnisink was asked to do cannot be done; the message names what and why."""


class UnsupportedModelError(OmnisinkError):
    """The model, or the way it is run, is one on which the method would be silently wrong."""


class MediaError(OmnisinkError):
    """A video, sound or image file cannot be used; the message names the file and the reason."""
