"""Every bound and default, with its unit in the name. Imports nothing.

One place to look for "how much at most"; modules never hold such numbers of their own.
"""

from __future__ import annotations

# ---- network -------------------------------------------------------------------------------
HEAD_PORT = 10001
FRAME_BYTES_MAX = 64 << 20  # zmq MAXMSGSIZE: per frame, both ways
PAYLOAD_BYTES_SOFT = 8 << 20  # a batch larger than this is cut into several payloads
PAYLOAD_ITEMS_MAX = 65_536  # messages of a payload, items of a message; else cut the same way
JOINED_ITEMS_MAX = 16_000_000  # in parts of messages that wait for the last one, per session
FRAMES_MAX = 8  # frames of one multipart message
REFUSED_MESSAGES_MAX = 16  # of one payload; after so many, the rest of it is not read
HANDSHAKE_S = 10.0
TRANSPORT_HEARTBEAT_S = 2.0
TRANSPORT_HEARTBEAT_TIMEOUT_S = 6.0
TRANSPORT_SILENT_S = 10.0  # a peer's machine that acknowledges nothing for so long is out of reach
LISTEN_BACKLOG = 4096
SILENT_CONNECTIONS_MAX = 1024  # or a quarter of the descriptors: those that have said nothing yet
CONNECT_TIMEOUT_S = 5.0  # first contact of a driver or daemon with its head
AUTH_TIMEOUT_S = 2.0  # a wrong key is reported within this
WELCOME_S = 20.0  # a head that serves many may take as long to welcome a driver
RECONNECT_FIRST_S = 0.05
RECONNECT_MAX_S = 2.0
DRAIN_MESSAGES_MAX = 256  # messages taken from one socket in one turn of the loop
DRAIN_BYTES_MAX = 8 << 20  # and about so many bytes: a flood of one peer is not a pause of all

# ---- liveness ------------------------------------------------------------------------------
PING_S = 2.0
SILENT_S = 3.0  # longer than between two PINGs: what was said may not have come
SUSPECT_S = 5.0  # silent for this long: no new work
AWAY_S = 8.0  # and who calls its actors is told so: TCP takes 6.2 s to get over a cut of 4 s
DEAD_S = 20.0  # without a session for this long: declared dead
DRIVER_LOST_S = 20.0  # a driver whose connection is gone for this long has lost its job
FIND_DRIVER_S = 0.2  # so often a node is asked whether the process of one that is away has ended
DRIVER_LOST_MIN_S = 1.0  # as an option
DRIVER_LOST_MAX_S = 30 * 86400.0
LOST_JOBS_MAX = 256  # of which the head remembers what became of them
ACTOR_LEASE_S = 15.0  # after the last PING that got a PONG, what may be restarted elsewhere waits
LEASE_LOOK_S = 0.2  # whether it may go on
REFUSED_S = 2.0  # the raylet's own port refuses for this long: proof of death
HEAD_LOST_GRACE_S = 600.0  # a raylet without a head gives up after this
INFEASIBLE_WARNING_S = 5.0
UNKNOWN_OBJECT_S = 10.0  # an object nobody has announced is lost after this
EARLY_CANCELS_MAX = 10_000  # of what nobody has told of, which a head keeps for that time
UNHEARD_OBJECT_S = SILENT_S  # one that is asked for: word of it may come a little later
STOP_S = 10.0  # a clean stop takes at most this long
HANG_UP_S = 0.02  # and before that, until workers have told what they have run
PART_S = 2.0  # a driver that leaves waits for so long until the head has heard that

# ---- tasks ---------------------------------------------------------------------------------
CLIENT_WINDOW_TASKS = 131_072  # submitted and unresolved; the rest waits in the client
CLIENT_WINDOW_BYTES = 128 << 20
DROPS_MAX = 2000  # in one message: freeing many objects must not hold the head up
SUBMIT_BYTES_MAX = 2 << 20  # arguments in one SUBMIT message
RAYLET_UNSTARTED_TASKS = 4096  # credit of one raylet
RAYLET_UNSTARTED_BYTES = 64 << 20
FAILURES_KEPT_MAX = 10_000  # failed tasks that a raylet remembers for a head that forgot them
PREFETCH_S = 0.005  # work sent ahead to a raylet, by the function's measured time
PREFETCH_ONE_S = 0.1  # of shorter tasks, one is sent ahead for each that runs
PREFETCH_TASKS_MAX = 1024
WORKER_BATCH_S = 0.004  # work sent ahead to one worker
WORKER_BATCH_TASKS_MAX = 512
SHORT_TASK_S = 0.001  # only functions measured under this share a worker's inbox
RESULT_DELAY_S = 0.002  # a finished result leaves the worker within this
ZYGOTE_STARTS_S = 0.5  # at least, between two starts of a node's zygote
IDLE_WORKER_S = 1.0  # idle workers beyond the CPUs end after this
LEADER_TTL_S = 10  # after its last renewal another head may lead, where the store is shared
LEADER_RENEW_S = 2.5
LEADER_RETRY_S = 0.25  # after a renewal that failed
LEADER_FENCE_S = 7.5  # without one that was sent since and succeeded, a head leads no more
LEADER_COMPACT_S = 300.0  # what was changed so long ago is forgotten by a shared store
LEADER_WAIT_S = 15.0  # a head waits so long for another to end, and for the store to answer
ADOPT_EPOCHS = 1 << 20  # more than a head is restarted between a backup and its use
HEAD_WAIT_S = 60.0  # for which a worker node waits for its head to come up
HEAD_WAIT_MAX_S = 1e6
WORKERS_MIN = 16  # that may have tasks at a time, on a node of few CPUs
WORKERS_MAX = 1 << 20  # what an option may say
WORKERS_PER_CPU = 4  # and on one of many
JOB_FLOORS_MAX = 1024  # jobs that one node bounds, of which the head hears
STALL_S = 0.25  # past that bound, nothing that others wait for has started: another task does
IDLE_S = 0.05  # a task that waits and does nothing else for so long lends its CPU
IDLE_SHARE = 0.1  # of a CPU; whoever uses less does nothing
RECALL_S = 0.020  # nothing waits for longer behind a task that should have ended, or runs long
RECALL_IDLE_S = 0.005  # the same where a CPU is idle, of what only the worker can give back
BEHIND_S = 0.020  # a long task that should end within this does so soon
BEHIND_TASKS_MAX = 8  # at one worker, unless all are short
PACKET_TASKS_BYTES_MAX = 64 << 10  # of tasks that wait behind others at a worker, in one packet
LOCALITY_BYTES_MIN = 1 << 20  # a task with larger arguments prefers the node that has them
LOCALITY_WAIT_S = 0.3  # and goes to another rather than wait longer than this for nothing
NEAR_TASKS = 1024  # submitted by workers of a node and not told to the head
NEAR_WAIT_S = 0.010  # so long they wait for one of them to start, then all are told
NEAR_REPORT_S = 0.020  # how often the head hears how many there are
STEAL_IDLE_S = 0.005  # tasks that take less are stolen only if another raylet is idle for so long
STEAL_PAUSE_S = 0.050  # after an empty RETURNED
SPARE_WORKERS = 2  # ready for the next actors, where they come in a row; else one
OWN_NODE_RETRY_FIRST_S = 0.5  # after the second early end of a head's own node; doubled each time
OWN_NODE_RETRY_MAX_S = 30.0
OWN_NODE_STEADY_S = 60.0  # one that has run for so long is started again at once
FORK_RETRY_FIRST_S = 0.1  # after a worker that ended before it began anything; doubled each time
FORK_RETRY_MAX_S = 5.0
LEND_AFTER_S = 0.5  # a task that waits longer for its arguments lets others have its resources
MAX_RETRIES = 3
LINEAGE_PIN_BYTES_MAX = 1 << 20  # smaller arguments that cannot be made again are kept for it
LINEAGE_ITEMS_MAX = 16_384  # of one generator that are made again at once
LINEAGE_BYTES_MAX = 128 << 20  # of the head's memory, for how large results were made
RETURNS_MAX = 10_000  # of one task
REFERENCES_MAX = 1_000_000  # in one value, or in all results of one task
ACK_DELAY_S = 0.1  # a DONE is acknowledged along with other messages, or after this
CANCEL_GRACE_S = 5.0  # from a soft cancel to the kill
SPANS_KEPT_MAX = 1000  # tasks that a worker remembers, for a timeline
SPANS_NODE_MAX = 10_000  # of those that a node tells at a time, or keeps of workers that have ended
SUBMITS_KEPT_MAX = (
    10_000  # and that a process notes to have submitted, while a timeline is recorded
)
USES_TOLD_MAX = 16  # tasks whose results one of these uses
RECORD_S_MAX = 600.0
TRACE_WAIT_S = 0.5  # how long a node waits for what its workers remember
ALIGNED_BYTES_MAX = (
    16 << 20
)  # of values outside shared memory whose arrays are copied to be aligned
TIMEOUT_MAX_S = 10 * 365 * 86400.0  # of a task, as an option
PRIORITY_MAX = 1_000_000  # of a task, either way
RESOURCES_MAX = 1000  # kinds that one task or actor may name
SELECTORS_CHARS_MAX = 16_384  # of all names and values that select nodes by their labels
BUNDLES_MAX = 1000  # of one placement group
GROUP_BYTES_MAX = 256 << 10  # of one placement group, as it is sent
GROUPS_KEPT_MAX = 10_000  # removed placement groups that the head remembers
BUNDLES_KEPT_MAX = 50_000  # and so many bundles of these in all
GROUP_WAITS_MAX = 1000  # of one process until a group is placed; the first of more is answered
BUNDLE_NAME_MAX = 200  # characters of a resource of a bundle: its place is added to that
GROUP_SHAPES_MAX = 256  # kinds of bundles of which it is known which nodes may have room
GROUP_TRIES_MAX = 64  # kinds of groups without a place that are looked at in a turn
GROUPS_PLACED_MAX = 256  # groups that are given their places in a turn
GROUP_CLAIM_AFTER_S = 0.05  # a group waits for so long before room is kept for it
GROUP_CLAIM_S = 2.0  # and so long at most, then as long not
GROUP_CLAIMS_MAX = 8
GROUP_RETRY_S = 0.02  # after a node has refused a bundle, at first
GROUP_RETRY_MAX_S = 2.0
ENV_VARS_CHARS_MAX = 1 << 20  # of all names and values of an environment
PACKAGE_BYTES_MAX = 500 << 20  # of the files of a working_dir or of one of py_modules, as in Ray
PACKAGE_FILES_MAX = 200_000  # of one
PACKAGE_FOLDERS_DEEP_MAX = 200  # of one, each in the one before
PACKAGE_EXPANSION_MAX = 4  # a file that is a package may unpack to so many times the above
PARTS_MAX = 100  # packages and interpreters of one environment
REQUIREMENTS_MAX = 2000  # lines of an environment's pip or uv
SETUP_HOOK_BYTES_MAX = 256 << 10  # of a worker_process_setup_hook's pickle
SETUP_TIMEOUT_S = 600.0  # of building an environment, unless it says otherwise
ENVIRONMENT_BUILDS_MAX = 4  # at a time on one node
ENVIRONMENT_RETRY_S = 10.0  # so long a part that could not be built is not tried again
ENVIRONMENTS_BYTES_MAX = 10 << 30  # of what is built on one node; more only if all of it is in use
ENVIRONMENTS_KEPT = 1000  # that a node remembers of its jobs, beyond those in use
ENVIRONMENT_PARTS_KEPT = 5000  # of what is built on one node, beyond what is in use
PACKAGE_SOURCES_MAX = 16  # programs that have sent the same package, of which a node knows
ENVIRONMENTS_LISTED_MAX = 200  # of one node, those that were named last
BUILD_LINES_MAX = 200  # of what a build says, to its drivers
BUILD_TEXT_MAX = 4000  # characters of what it said last, in the error
ZYGOTE_REST_S = 300.0  # an environment's own is ended that has had no worker for so long
NODE_OPTIONS_BYTES_MAX = 64 << 10  # of JSON; Linux takes an argument of 128 KiB
NODES_COMPARED = 32  # of those with room, to spread few tasks; of those with tasks to be taken back
RESOURCE_UNIT = 10_000  # a resource of 1 is this many units: granularity 0.0001
PREFETCH_UNKNOWN_TASKS = 1

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

# ---- leases ----------------------------------------------------------------------------------
LEASE_IDLE_S = 0.1  # a leased worker without a task for so long ends its lease
LEASE_CONNECT_S = 1.0  # the same for one whose submitter has not connected yet
LEASE_FORCE_S = 0.1  # a task cancelled with force that runs for so long costs its worker
LEASE_PAUSE_S = 0.1  # after others had to wait, tasks of their needs go by way of the head
LEASE_TURN_S = 0.06  # about so long a job has a CPU that jobs have in turn
LEASE_SPARE_S = 0.01  # a lease that others could use ends when it has had no task for so long
LEASE_MEMORY_S = 1.0  # for so long after, it is known who has had how much
LEASE_LOOK_EACH_S = 5e-6  # node, lease or task: so long until it is looked again who has what
LEASE_STARVED_S = 1.0  # tasks that wait so long for a turn go by way of the head
LEASE_REFUSALS = 3  # in a row: the node knows better, and gets tasks instead for a while
LEASE_HOLD_S = 2.0  # so long, of tasks without any node, most wait for one at their submitter
LEASE_WINDOW_TASKS = 16  # that go by way of the head meanwhile, of those that are not leased
LEASE_WINDOW_LANES = 4  # or so many for each that can run
LEASE_LATE_S = 0.005  # and twice what it should take: longer, and those behind a task go elsewhere
LEASE_BAR_S = 10.0  # for so long, whoever could not reach a worker gets none
LEASE_BATCH_S = 0.008  # work in the queue of a leased worker, by the function's measured time
LEASE_DEEP_TASKS = 32  # or so many tasks, if that is more, of a worker on this machine
LEASE_DEEP_S = 0.08  # but of no more than this
LEASE_BRIEF_NAP_S = 0.003  # at most, until ends of which the wait is not over are read together
LEASE_NAP_S = 0.04  # the same where each worker has some tasks more to do
LEASE_NAP_TASKS = 4  # so many
LEASE_SHORT_S = 0.002  # tasks known to take less go several in one packet
LEASE_PACKET_S = 0.002  # so much of those
LEASE_BEHIND_S = 0.1  # of shorter tasks, one waits at the worker behind the one that runs
LEASE_HAND_OVER_TASKS = 2000  # at once, of those that are to go by way of the head after all
LEASE_FUNCTION_BYTES_MAX = 1 << 20  # tasks of larger functions go by way of the head
LEASE_FUNCTIONS_MAX = 256  # of former leases, which a worker keeps
LEASE_TASK_BYTES_MAX = 64 << 10  # larger ones go by way of the head
LEASE_NODES_MAX = 64  # on other machines, to which one submitter has connections
LEASE_WORD_BYTES_MAX = (
    1 << 20
)  # what is said to a leased worker on another machine goes in such parts
LEASE_SAID_BYTES_MAX = 4 << 20  # of one thing that is said to it, and of what waits for one end
LEASE_ACK_WORDS = 32  # that have come are acknowledged, though there is nothing to say
LEASE_ACK_BYTES = 256 << 10
HANDSHAKE_ROUND_TRIPS = 5  # from connecting to a node's port to its WELCOME
LEASE_SUBMITTERS_MAX = 4096  # that a node remembers without having a lease for them

# ---- generators ------------------------------------------------------------------------------
STREAM_DELAY_S = 0.001  # what is yielded leaves the worker within this, with what follows it
STREAM_SEND_BYTES = 256 << 10  # so much leaves at once
STREAM_KEPT_ITEMS = 10_000  # that the consumer has not said to have; then the generator waits
STREAM_KEPT_BYTES = 16 << 20
STREAM_AGAIN_S = 1.0  # without a word from the consumer, it is told again
STREAM_PATIENCE_S = 0.02  # a generator that waits for longer for its consumer lends its CPU

# ---- actors ----------------------------------------------------------------------------------
ACTOR_WINDOW_CALLS = 16_384  # sent by one caller to one actor and unanswered; the rest waits
ACTOR_WINDOW_BYTES = 64 << 20
ACTOR_CANCELS_MAX = 1024  # of one caller, of calls that have not come yet
GROUPS_MAX = 1000  # concurrency groups of one actor
ACTOR_PASSED_CALLS_MAX = 1024  # that may not be sent yet, and that others overtake
ACTOR_RESTART_FIRST_S = 0.05  # before the second restart in a row; doubles with each
ACTOR_RESTART_MAX_S = 30.0
ACTORS_DEAD_KEPT_MAX = 10_000  # dead actors whose cause the head remembers
ACTOR_CALLERS_CHECK_S = 30.0  # an actor asks this often whether silent callers have ended
ACTOR_LINGER_S = 5.0  # an actor that ends by its own wish waits so long for acknowledgements
ACTOR_EXIT_S = 30.0  # for its exit handlers, and __ray_shutdown__
ASYNC_CONCURRENCY = 1000  # calls that an async actor runs at once by default

# ---- values --------------------------------------------------------------------------------
INLINE_BYTES_MAX = 64 << 10  # larger values stay where they were made until asked for
INLINE_TOTAL_BYTES_MAX = 1 << 20  # of one end, or along with one call; beyond, as larger ones
CALL_BYTES_MAX = 512 << 10  # larger arguments of an actor's call go by shared memory
ARGUMENT_BYTES_MAX = 4 << 10  # larger arguments of a task become an object
HEAD_CACHE_BYTES = 64 << 20
UNREAD_BYTES = 64 << 20  # of values sent to one process and not acknowledged; others wait
UNREAD_BYTES_ALL = 256 << 20  # the same, of all processes
CHUNK_BYTES = 1 << 20
CHUNK_WINDOW = 8  # chunks on the way in one transfer
PEER_PULLS_MAX = 2  # of one object from one node at once; later ones go to those that got it
PEER_CONNECT_S = 2.0  # a node that cannot be reached in this time is asked by way of the head
PEER_AVOID_S = 60.0  # and again for so long
FUNCTION_BYTES_WARN = 10_000_000  # this and the next as in Ray
FUNCTION_BYTES_MAX = 100_000_000
FUNCTION_INLINE_BYTES_MAX = 10_000_000  # the pickle of a larger one is an object
SOURCE_CHARS_MAX = 256 << 10  # of its source, for tracebacks
ERROR_TEXT_BYTES_MAX = 64 << 10

# ---- shared memory -------------------------------------------------------------------------
POOLED_SEGMENT_BYTES = 64 << 20  # a segment that objects share; a larger object gets its own
WARM_BYTES_MAX = 256 << 20  # empty segments that one process keeps for reuse
STORE_SHARE = 0.3  # of the machine's memory, for a node's objects
STORE_BYTES_MIN = 4 << 20  # of one node
HEAP_LOOK_S = 5.0  # so often a daemon looks whether it has freed so much
HEAP_FREE_BYTES = 16 << 20
STORE_SMALL_SHARE = 8  # of a store: small values may take one such part beside it, in the raylet
STORE_SMALL_BYTES_MIN = 1024  # smaller ones stay there whatever their number
STORE_GRANT_BYTES = 16 << 20  # a process asks its node for memory in amounts of at least this
STORE_RELIEF_S = 10.0  # how long a process waits for others to release memory
STORE_PASSING_S = 60.0  # and for memory that is being written, spilled or read back
STORE_KEPT_SHARE = 8  # of a store: a process keeps no more than one such part unasked
STORE_ATTACH_S = 1.0  # from connecting to a node's store to its answer
STORE_RETRY_FIRST_S = 0.01  # a process that found no store on its machine looks again after this
STORE_RETRY_MAX_S = 1.0  # at last
SPILL_RETRY_S = 5.0  # after a spill that failed, the next one is tried after this
FILE_BYTES_MAX = 8 << 20  # read or written at a time
COPY_BYTES_MAX = 8 << 20  # copied at a time, so that other threads are not held up for long

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
WHY_LOOK_BLOCKS = 20  # of what is over, in one turn of the head
WHY_QUESTIONS_MAX = 256  # that wait for others; more are answered without these
STUCK_S = 10.0  # get or wait, without any progress: says what it waits for
STUCK_AGAIN_S = 60.0  # and again

# ---- processes and logs --------------------------------------------------------------------
LOG_UNREAD_BYTES = 16 << 20  # prints for one process that has said nothing since
LOG_UNREAD_ALL_BYTES = 64 << 20  # for all
LOG_ACK_BYTES = 4 << 20  # who has got so many says something
LOG_LINE_BYTES_MAX = 16 << 10
STDERR_TAIL_LINES = 20
LOG_PART_BYTES_MAX = 256 << 10  # of a log, in one answer
LOG_FILES_TOLD_MAX = 10_000  # of one node, in one answer
LOG_FILES_SCANNED_MAX = 50_000  # in the directory of a node's logs, for that
PRINTED_TASKS_KEPT = 10_000  # of which a node knows what they have printed
PRINTED_PARTS_MAX = 1000  # of the output of one task, between that of others
PAST_WORKERS_KEPT = 1000  # that have ended, whose logs a node can still name by their pids
ADVICE_FUNCTION_BYTES = 1 << 20  # a function that captures so much is worth advice
ADVICE_ARGUMENT_BYTES = 1 << 20  # the same for an argument that is passed by value
ADVICE_SAME_ARGUMENTS = 8  # times in a row, before it is looked at closely
ADVICE_DIGESTS = 3  # equal ones are the same argument
ADVICE_REFERENCES = 500_000
ADVICE_TINY_S = 100e-6
ADVICE_TINY_TASKS = 5_000
ADVICE_LOOK_TASKS = 100  # one after the other, within PING_S
LOG_FILE_BYTES = 64 << 20  # a log of a daemon or worker is rotated at this size
LOG_FILE_AGE_S = 7 * 86400.0  # and at this age
LOG_FILES_KEPT = 5  # of each log, beside the one that is written
LOG_FILES_KEPT_MAX = 1000
LOG_LOOK_S = 5.0  # so often a daemon looks at its own
LOGS_LOOK_S = 600.0  # and a node at those of its workers
ENDED_LOG_AGE_S = 30 * 86400.0  # the log of a worker that has ended is removed after this
ENDED_LOG_FILES = 10_000  # of one node; the oldest go first
ENDED_LOGS_BYTES = 4 << 30
FOLD_S = 5.0  # a line of one worker that another has printed within this is counted, not shown
FOLD_LINES = 10_000  # that a driver remembers for this
FOLD_CHARACTERS = 4 << 20
BARS_MAX = 64  # progress bars of one process that are open
PROGRESS_S = 0.2  # a worker says at most so often how far its bars are
PROGRESS_AGAIN_S = 5.0  # and so often though nothing has changed
PROGRESS_SILENT_S = 30.0  # a bar of which nothing is said for so long is over
PROGRESS_NODE_PER_S = 100.0  # messages about progress that a node passes on
PROGRESS_HEAD_PER_S = 500.0  # and a head
CAUSE_BYTES_MAX = 16 << 10  # of why a process ended, its last words included
TEXT_MAX = 64 << 10  # characters of a text in a message
IMPORT_CHECK_S = 60.0  # for trying the modules of --import when a daemon starts
NOTES_MAX = 256  # notices kept for `zray status`
NAME_MAX = 256  # characters of a name in a message
FRESH_START_S = 60.0  # for a fault of one kind a session begins anew once in so long
INCIDENT_S = 300.0  # a daemon counts as degraded for so long after something went wrong in it
INCIDENTS_MAX = 64  # kinds of what went wrong that a daemon remembers
HEALTH_TEXT_MAX = 8000  # characters of a cluster's health, in a status
INCIDENT_TEXT_MAX = 500  # characters of an error, in a line about it
RESERVED_DESCRIPTORS = 64  # or a quarter of those allowed: not for new workers
CALLBACK_PAUSE_S = 0.1  # a callback of the loop that failed is not called again before this

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

assert INLINE_TOTAL_BYTES_MAX + REFERENCES_MAX * 22 + RETURNS_MAX * 100 < FRAME_BYTES_MAX
assert SUSPECT_S > 2 * PING_S > SILENT_S > PING_S
assert DEAD_S > AWAY_S > SUSPECT_S and DEAD_S > ACTOR_LEASE_S + PING_S
assert LEADER_RENEW_S < LEADER_FENCE_S < LEADER_TTL_S < LEADER_WAIT_S
assert CHUNK_BYTES < FRAME_BYTES_MAX and FUNCTION_INLINE_BYTES_MAX < FRAME_BYTES_MAX
assert PAYLOAD_BYTES_SOFT + FUNCTION_INLINE_BYTES_MAX <= FRAME_BYTES_MAX + (8 << 20)
