"""The worker's machines: what runs next."""
