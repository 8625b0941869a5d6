"""What processes run in: time, chance, the network, and what an operating system knows of them."""
