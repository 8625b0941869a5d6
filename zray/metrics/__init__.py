"""What Prometheus reads of a cluster: which metrics there are, their text, files to begin with."""
