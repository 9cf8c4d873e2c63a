"""The errors omnisink raises on purpose, so that a caller can catch them by one name."""


class OmnisinkError(Exception):
    """Something omnisink was asked to do cannot be done; the message names what and why."""


class UnsupportedModelError(OmnisinkError):
    """The model, or the way it is run, is one on which the method would be silently wrong."""
