"""Who takes part, in what order, where, until when; how idle the devices are; plain Python."""

from scheduler.dispatch import Dispatcher
from scheduler.durations import Durations
from scheduler.idle import Idle, lower_bound, measure
from scheduler.policy import Policy
from scheduler.views import Assign, Job, JobKey

__all__ = ["Assign", "Dispatcher", "Durations", "Idle", "Job", "JobKey", "Policy", "lower_bound", "measure"]
