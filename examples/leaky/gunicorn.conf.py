"""Two workers of four threads."""

from profilers.gunicorn import post_worker_init, worker_abort, worker_exit  # noqa: F401 - hooks of Gunicorn

wsgi_app = "leaky:app"
workers = 2
threads = 4
