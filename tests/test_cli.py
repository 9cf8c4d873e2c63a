"""The command line as its users meet it: its two streams and its exit status."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from omnisink import OutRo, SinkMap, __version__
from omnisink.cli.demo import CLIP
from omnisink.errors import OmnisinkError
from omnisink.verification.families import FAMILIES
from tests.cli.command import refused, run, run_in_process
