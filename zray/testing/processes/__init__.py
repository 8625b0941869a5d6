"""The simulated processes: the shipped machines in shells that decide nothing."""
