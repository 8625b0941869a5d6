"""Bounds of what is around what runs: jobs, what is told and asked, metrics."""

from __future__ import annotations

from zray.limits.running import (
    ACTOR_LEASE_S,
    AWAY_S,
    CHUNK_BYTES,
    DEAD_S,
    FRAME_BYTES_MAX,
    FUNCTION_INLINE_BYTES_MAX,
    INLINE_TOTAL_BYTES_MAX,
    LEADER_FENCE_S,
    LEADER_RENEW_S,
    LEADER_TTL_S,
    LEADER_WAIT_S,
    PAYLOAD_BYTES_SOFT,
    PING_S,
    REFERENCES_MAX,
    RETURNS_MAX,
    SILENT_S,
    SUSPECT_S,
)

# ---- submitted jobs --------------------------------------------------------------------------
SUBMISSION_ID_MAX = 128  # characters
JOB_ENTRYPOINT_MAX = 32 << 10  # characters of a job's command
JOB_METADATA_MAX = 1000  # entries of a job
JOB_METADATA_CHARS_MAX = 64 << 10  # of all their names and values
JOBS_LIVE_MAX = 1000  # submitted, and not ended
JOBS_ENDED_MAX = 10_000  # that the head remembers; the oldest are forgotten
JOBS_ENDED_BYTES = 64 << 20  # of its memory, for those
JOBS_TOLD_MAX = 1000  # in one answer
JOBS_TOLD_BYTES = 2 << 20  # and about so many bytes
JOB_STOP_S = 3.0  # from SIGTERM to SIGKILL
JOB_STOP_MAX_S = 10.0  # after which the supervisor of a job that is to stop is killed
JOB_LOG_BYTES = 16 << 20  # of a job's log, in one answer: the last
JOB_LAST_WORDS_BYTES = 20_000  # of a failed command, in its job's message

# ---- what has happened -------------------------------------------------------------------------
BRIEF_TEXT_MAX = 1000  # characters of a text in a row of a list
FILTERS_MAX = 16  # of one list
LISTED_ROWS_MAX = 1000  # in one answer; the next go into another
LISTED_LOOK_ROWS = 500  # looked at in one turn of the head, of all lists that are asked for
LISTS_WAITING_MAX = 64  # questions of one peer that wait for their turn; more are refused
LISTS_ALL_MAX = 1024  # of all
LISTS_BEGUN_MAX = 4  # of these, those that are being made
LISTS_OPEN_MAX = 128  # whose first rows were told: what they go on with is kept
LISTS_OPEN_S = 60.0  # for so long
LISTS_OPEN_ITEMS_MAX = 2_000_000  # of all of these
LISTED_LOOK_BLOCKS = 200  # of what is over, looked through in one turn for an id
REASONS_LOOKED_UP_MAX = 20  # of waiting classes, in one turn
FINISHED_TASKS_BYTES = 16 << 20  # of the head's memory, for the last tasks that have ended well
FAILED_TASKS_BYTES = 8 << 20  # and badly
THINGS_ENDED_BYTES = 2 << 20  # each: actors, nodes, workers and jobs that are no more, and events
TASK_NAMES_MAX = 2000  # by which ended tasks are counted, and things in a summary
RUNNING_TOLD_MAX = 20_000  # tasks that run, of which the head hears by and by
WORKERS_KNOWN_MAX = 100_000
REPORT_FIRST_S = 0.1  # after a task, until its worker tells of it
REPORT_URGENT_S = 0.02  # but no sooner after the last, though one has failed
REPORT_BUSY_S = 1.0  # the same where there are more than it tells of
REPORT_NODE_S = 0.1  # and until its node does
REPORT_BURST_ROWS = 10_000  # ended tasks of which a node tells one by one
REPORT_ROWS_PER_S = 200  # and so many more each second; of the others it tells how many there are
REPORT_WORKER_ROWS = 1000  # of one worker at first
REPORT_WORKER_ROWS_PER_S = 100  # and so many more each second
REPORT_BUSY_TASKS = 50  # more than these at a time, and it is told of less often
REPORT_ROWS_MAX = 2000  # in one message of a node
REPORT_RUNNING_S = 0.1  # what runs for so long is told of as it runs
REPORT_RUNNING_MAX = 100  # of one worker
# ---- why something waits ---------------------------------------------------------------------
WHY_SUBJECTS_MAX = 16  # in one question
WHY_CHAIN_MAX = 16  # causes, each of the one before
WHY_DETAILS_MAX = 12  # of one cause
WHY_NODES_MAX = 256  # that are looked at for one cause
WHY_SCAN_MAX = 2000  # tasks of a job, or actors whose ids are compared
NODES_DEAD_KEPT_MAX = 1000  # of which the head remembers why they are dead
WHY_CHARS_MAX = 2000  # of one text
WHY_ASK_S = 1.0  # whoever knows more is waited for no longer
WHY_ASKED_MAX = 32  # nodes that are asked whether they know a task
WHY_HOPS_MAX = 10_000  # tasks in a row, each for the one before, that are passed over in one answer
WHY_LOOK_BLOCKS = 20  # of what is over, in one turn of the head
WHY_QUESTIONS_MAX = 256  # that wait for others; more are answered without these
STUCK_S = 10.0  # get or wait, without any progress: says what it waits for
STUCK_AGAIN_S = 60.0  # and again

# ---- operating -----------------------------------------------------------------------------
OPEN_QUESTIONS_MAX = 64  # of one observer to nodes, without an answer
QUESTION_S = 5.0  # a node that has not answered by then does not
LOCATE_WAIT_S = 0.5  # how long a node waits for its workers to say whether a task is theirs
EXAMINATIONS_MAX = 4  # of processes of one node at a time
EXAMINE_S = 10.0  # the tool that reads a stack is killed after this
EXAMINED_BYTES_MAX = 8 << 20  # of what it found
WORKER_STACK_S = 3.0  # how long a worker may take to tell its own
MEASURED_PROCESSES_MAX = 4096  # of one node, in one answer
MEASURED_FRESH_S = 0.2  # a node looks at its processes no more often
HELD_ROWS_MAX = 10_000  # objects of one process, told to whoever asks what holds memory
HELD_NODE_ROWS_MAX = 20_000  # of all workers of a node
HELD_ROWS_MIN = 20  # but so many of each
HELD_LOOKED_AT_MAX = 200_000  # references of a process, to find the largest
HELD_WAIT_S = 1.0  # how long a node waits for its workers to say what they hold
HELD_VIEWERS_MAX = 8
SITES_MAX = 1000  # lines that make references, told by one process
SITE_CHARS_MAX = 300
PROFILE_S_MAX = 600.0
PROFILE_RATE = 100  # samples a second
DRAIN_LOOK_S = 0.2  # how often it is looked whether a node that is drained can leave
DRAIN_SCAN_OBJECTS = 20_000  # looked at for it in one turn
DRAIN_FETCHES_MAX = 64  # copies of its objects on their way

# ---- dashboard -----------------------------------------------------------------------------
DASHBOARD_PORT = 8265
DASHBOARD_PORTS_TRIED = 50  # from that one on, where none was asked for
DASHBOARD_IDLE_S = 900.0  # without a request or a viewer its process ends
DASHBOARD_STEADY_S = 60.0  # one that has run for so long has not failed to start
DASHBOARD_RETRY_FIRST_S = 0.5  # until it is started again, after it has failed
DASHBOARD_RETRY_MAX_S = 30.0
LOGIN_CODE_S = 60.0  # from its making until a browser shows it
LOGIN_S = 12 * 3600.0  # of a browser
# ---- metrics -------------------------------------------------------------------------------
LABEL_MAX = 256  # characters of a label's name or value
LABELS_MAX = 16  # of one series
BUCKETS_MAX = 64  # of one histogram
SERIES_PROCESS_MAX = 1000  # that the program in one process may record
SERIES_KEPT_MAX = 10_000  # of programs, that a head or node keeps
SERIES_CHARACTERS_MAX = 4 << 20  # of these
SERIES_ANSWER_MAX = 50_000  # in one answer
SERIES_KEPT_S = 600.0  # and for so long after their job has ended
RECORDED_S = 1.0  # how often a process tells what was recorded in it
FUNCTIONS_MEASURED_MAX = 100  # by name; of the others all together
TASK_BUCKETS_S = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 300.0, 1800.0)
TURN_BUCKETS_S = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0)
COMMIT_BUCKETS_S = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0)

# ---- replaying ----------------------------------------------------------------------------------
REPLAY_NODE_BYTES = 32 << 20  # what a node keeps of attempts that have failed; the oldest go first
REPLAY_RUN_BYTES_MAX = 4 << 20  # of one of them, without its function
REPLAY_RUN_COST = 512  # that one takes beside its bytes
REPLAY_CREATION_BYTES = 64 << 10  # of an actor's constructor's arguments, that its worker keeps
REPLAY_WORKER_RUNS = 1000  # that a worker has kept at first
REPLAY_WORKER_RUNS_PER_S = 100  # and so many more each second
REPLAY_PART_BYTES_MAX = 1 << 20  # in one answer
REPLAY_LISTED_MAX = 1000  # in one answer

# ---- a head's parent (zray-head --supervise) -----------------------------------------------
WATCHDOG_S = 30.0  # a head whose loop has not turned for so long is killed, and started again
WATCHDOG_MIN_S = 2.0
WATCHDOG_MAX_S = 86400.0
HEAD_START_S = 300.0  # one that does not serve so long after its start is killed, too
SUPERVISED_STOP_S = 25.0  # and one that was told to stop
SUPERVISED_STEADY_S = 10.0  # one that lasts so long is started again at once
SUPERVISED_FAILURES = 5  # in a row: it is told; one that has never served is given up
SUPERVISED_PAUSE_S = 0.1  # before the third start in a row; doubled each time
SUPERVISED_PAUSE_MAX_S = 30.0

assert INLINE_TOTAL_BYTES_MAX + REFERENCES_MAX * 22 + RETURNS_MAX * 100 < FRAME_BYTES_MAX
assert SUSPECT_S > 2 * PING_S > SILENT_S > PING_S
assert DEAD_S > AWAY_S > SUSPECT_S and DEAD_S > ACTOR_LEASE_S + PING_S
assert LEADER_RENEW_S < LEADER_FENCE_S < LEADER_TTL_S < LEADER_WAIT_S
assert CHUNK_BYTES < FRAME_BYTES_MAX and FUNCTION_INLINE_BYTES_MAX < FRAME_BYTES_MAX
assert PAYLOAD_BYTES_SOFT + FUNCTION_INLINE_BYTES_MAX <= FRAME_BYTES_MAX + (8 << 20)
