"""What drivers and workers share: the calls of the API on the Client machine."""
