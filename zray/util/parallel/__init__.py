"""What the executors and pools of ``zray.util`` share: calls in chunks, by measured time."""
