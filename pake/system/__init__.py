"""The service about itself: what it is, whether it lives, whether it is ready, its metrics."""
