"""The command line as its users meet it: its two streams and its exit status."""

from __future__ import annotations
