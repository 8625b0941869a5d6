"""The machines of whoever submits and calls: drivers, and workers for their tasks."""
