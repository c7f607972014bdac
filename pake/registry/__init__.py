"""The registry: services, their health checks and their metrics."""
