"""What each role may say, and for whom: what a driver, a node or an observer may send a head."""

from __future__ import annotations

from zray.protocol import messages as m

FORBIDDEN = m.FORBIDDEN

CLIENT_VERBS = frozenset(
    {
        *(m.Template, m.Export, m.Submit, m.ResultAck, m.Cancel, m.Hold, m.Drop, m.Watch, m.Put),
        *(m.Pull, m.Chunk, m.ChunkAck, m.PullFailed, m.Query, m.Kv, m.Ping, m.Goodbye),
        *(m.CreateActor, m.ActorWatch, m.KillActor, m.FindActor, m.ListActors),
        *(m.Calls, m.CancelCall, m.Promise, m.Sync, m.AskGone, m.Forget),
        *(m.Demand, m.Revoke, m.CancelLeased, m.Made, m.Reaches, m.Relay, m.Taken, m.Trace),
        *(m.List, m.Summarize),
        *(m.Why, m.ToldWhy, m.Recorded, m.Held, m.Traced),
        *(m.KeepRun, m.ReadRun, m.ListRuns, m.ListEnvironments),
        *(m.CreateGroup, m.RemoveGroup, m.AskGroups),
    }
)
NODE_VERBS = CLIENT_VERBS | {
    *(m.Credit, m.Done, m.Returned, m.WorkerDied, m.Announce, m.Have, m.Log, m.Progress),
    *(m.Replies, m.ActorExited, m.DriverEnded, m.Leased, m.LeaseEnded, m.Begun, m.Near),
    *(m.RelayRefused, m.Items, m.TaskReport),
    *(m.Answered, m.LogFiles, m.LogPart, m.Examined, m.Measured, m.Scraped),
    *(m.RunPart, m.RunsListed, m.EnvironmentsListed, m.Reserved, m.JobExited),
}
OBSERVER_VERBS = frozenset(
    {
        *(m.Query, m.Why, m.Ping, m.Goodbye, m.Shutdown, m.List, m.Summarize),
        *(m.Locate, m.ReadLog, m.Examine, m.Kill, m.Drain, m.Trace, m.Measure, m.Scrape),
        *(m.AskHeld, m.ListEnvironments, m.SubmitJob, m.EndJob, m.AskJobs, m.StepDown),
    }
)
VERBS = {m.ROLE_DRIVER: CLIENT_VERBS, m.ROLE_NODE: NODE_VERBS, m.ROLE_OBSERVER: OBSERVER_VERBS}

# Which field says for what process a message is; empty: for its sender.
SPEAKS_FOR: dict[type[m.Message], str] = {
    **dict.fromkeys((m.Hold, m.Drop, m.Put, m.Promise, m.FindActor), "holder"),
    **dict.fromkeys((m.Template, m.Export, m.Forget), "holder"),
    **dict.fromkeys((m.ResultAck, m.Watch), "target"),
    **dict.fromkeys((m.Calls, m.CancelCall), "caller"),
    **dict.fromkeys((m.Submit, m.Begun, m.Demand, m.Made, m.Reaches), "submitter"),
    **dict.fromkeys((m.Relay, m.RelayRefused, m.Items, m.Taken, m.Trace, m.Traced), "source"),
    m.CreateActor: "owner",
}
