"""Pictures of a run, drawn with matplotlib without a display: the tree, what sites have, the model's way, curves per
tier, calibration, models by sites, the workers' timeline, and that of devices that runs share.

Every function returns a `Figure`, legible when it is shown 1200 pixels wide. Import this package only where a picture
is due: matplotlib takes a second to load.
"""

from hierfl.monitor.pictures import _quiet as _quiet
from hierfl.monitor.pictures.curves import curves
from hierfl.monitor.pictures.heat import heat
from hierfl.monitor.pictures.histograms import histograms
from hierfl.monitor.pictures.reliability import reliability
from hierfl.monitor.pictures.sharing import sharing
from hierfl.monitor.pictures.style import png
from hierfl.monitor.pictures.timeline import timeline
from hierfl.monitor.pictures.trajectory import trajectory
from hierfl.monitor.pictures.tree import tree

__all__ = ["curves", "heat", "histograms", "png", "reliability", "sharing", "timeline", "trajectory", "tree"]
