"""How the process that judges and the Locust process that it starts find each other's files."""

ACCOUNTS = "LOAD_ACCOUNTS"
"""A JSON file of accounts by role, for the personas: `{"user": [{"username": …, "password": …}], …}`."""

RESULTS = "LOAD_RESULTS"
"""The file that the statistics go to at the end of a run."""

ARRIVALS = "LOAD_ARRIVALS"
"""Journeys that are to begin in a second, in each Locust process; unset in the closed model."""
