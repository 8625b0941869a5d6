"""What must hold: the ground truth of who did what, and the invariants of the design."""
