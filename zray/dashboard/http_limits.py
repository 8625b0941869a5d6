"""Bounds of what viewers may ask for over HTTP, in seconds, bytes and numbers of viewers."""

from __future__ import annotations

CONNECTIONS_MAX = 256  # of all viewers; the one that is idle for longest goes first
HEADER_S = 10.0  # for all of a request's header, or its body
IDLE_S = 30.0  # between two requests
SEND_S = 30.0  # a viewer that takes nothing for so long is gone
SEND_BYTES = 256 << 10  # kept by the system for one that does not read
HEADER_BYTES_MAX = 32 << 10
BODY_BYTES_MAX = 1 << 20
STREAMS_MAX = 64  # viewers that are told as things change
LOG_STREAMS_MAX = 32  # of these, those that follow a log
JOB_LOG_BYTES = 4 << 20  # of a job's log, in one answer: the last
QUESTIONS_AT_ONCE = 4  # to the head
QUESTIONS_WAITING_MAX = 64  # for their turn; more are refused
QUESTION_WAIT_S = 10.0  # for its turn
LOOKS_AT_ONCE = 4  # flame graphs, which take long
LIVE_S = 1.0  # between two samples of what viewers see
LIVE_SAMPLES_MAX = 600  # that a new viewer is told
LIVE_PATIENCE_S = 2.0  # until the head counts as silent
