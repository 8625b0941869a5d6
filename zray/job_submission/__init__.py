"""Submitted jobs, under the path where Ray has them: ``ray.job_submission``."""

from zray.jobs.client import JobSubmissionClient
from zray.jobs.details import (
    DriverInfo,
    JobDetails,
    JobErrorType,
    JobInfo,
    JobStatus,
    JobType,
)

__all__ = [
    "DriverInfo",
    "JobDetails",
    "JobErrorType",
    "JobInfo",
    "JobStatus",
    "JobSubmissionClient",
    "JobType",
]
