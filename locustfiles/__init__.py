"""The load: personas, scenarios and the gate that turns a run into a verdict.

make perf-smoke                       drive the service that it starts, and judge the run
python -m locustfiles smoke           the same
locust -f locustfiles/locustfile.py   Locust's own web page, against a service that runs already
"""
