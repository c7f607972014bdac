"""How the process that judges and the Locust process that it starts find each other's files."""

ACCOUNTS = "LOAD_ACCOUNTS"
"""A JSON file of accounts by role, for the personas: `{"user": [{"username": …, "password": …}], …}`."""

RESULTS = "LOAD_RESULTS"
"""The file that the statistics go to at the end of a run."""
