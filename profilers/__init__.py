"""Profilers for Flask + SQLAlchemy apps, toggled by configuration."""
