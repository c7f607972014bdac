"""Two versions of the service, measured beside each other: which route got slower, and which line did it."""
