"""The page of a cluster and its HTTP API: a process that a head starts, and a mere observer."""
