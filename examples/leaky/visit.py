"""Visitors of the shop for so many seconds: `python visit.py http://127.0.0.1:8000 120`."""

import random
import sys
import time
import urllib.request

PATHS = ("/articles", "/articles/article%207", "/search?q=article+1", "/search?q=9")

url, seconds = sys.argv[1], float(sys.argv[2])
until = time.monotonic() + seconds
while time.monotonic() < until:
    urllib.request.urlopen(url + random.choice(PATHS)).read()  # noqa: S310, S311 - an example of ours
