"""Who takes part, in what order, where, until when; how idle the devices are; plain Python."""

from scheduler.bounds import lower_bound
from scheduler.colocation import Colocation
from scheduler.dispatch import Dispatcher
from scheduler.durations import Accuracy, Durations
from scheduler.eligibility import infeasible
from scheduler.guests import Beside, Model, Rate
from scheduler.idle import Idle, measure
from scheduler.leases import Granted, LeaseDecision, Leases, Recall, Want
from scheduler.memory import Memory
from scheduler.participation import Admission, Candidates, Choice, Ending, Limits, Participation, RoundView
from scheduler.policy import Policy
from scheduler.views import Assign, Device, Job, JobKey

__all__ = [
    "Accuracy",
    "Admission",
    "Assign",
    "Beside",
    "Candidates",
    "Choice",
    "Colocation",
    "Device",
    "Dispatcher",
    "Durations",
    "Ending",
    "Granted",
    "Idle",
    "Job",
    "JobKey",
    "LeaseDecision",
    "Leases",
    "Limits",
    "Memory",
    "Model",
    "Participation",
    "Policy",
    "Rate",
    "Recall",
    "RoundView",
    "Want",
    "infeasible",
    "lower_bound",
    "measure",
]
