"""Keeps matplotlib from telling of its caches, fonts and missing letters: a run's terminal is no place for that.

It is to be imported before matplotlib, which speaks of a home that it cannot write as soon as it is loaded.
"""

import logging
import warnings

logging.getLogger("matplotlib").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
