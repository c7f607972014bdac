"""The PAKE service."""
