"""Hear of every profile as it is finished: count findings, send them on, write them elsewhere.

    from profilers.signals import profile_examined

    @profile_examined.connect_via(app)
    def count(app, profile):
        for finding in profile.findings: ...

The signal is sent beside the requests, in the profilers' own thread, once all profilers have examined the
profile and before it is stored. A receiver that raises is logged once and changes nothing.
"""

from __future__ import annotations

from blinker import Signal  # Flask's own signals are made of it: it is there wherever Flask is

profile_examined = Signal()
"""Sent by the Flask app, with `profile`: of a request or block, or of a request that was lost."""
