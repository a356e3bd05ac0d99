"""Fair turns by key, and loads that happen once in seeded races."""

from __future__ import annotations

import concurrent.futures
import random
import statistics
import time
from pathlib import Path

from gateways import MODEL, config_of, gateway

from lmdeck.testing import FakeLMStudio

RACES = 60
