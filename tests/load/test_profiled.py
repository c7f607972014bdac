"""What the profilers saw is read from their own report and joined to the routes of the run by name."""

from pathlib import Path

import pytest

from locustfiles import profiled
from locustfiles.profiled import ProfiledRoute
from locustfiles.service import Service, ServiceError
from profilers.profile import Finding, Profile, Statement
from profilers.store import open_store


def service(store: Path) -> Service:
    return Service("http://127.0.0.1:1", environment={"FLASK_PROFILE_STORE": str(store)})


def test_routes_are_joined_whatever_their_parameters_are_called(tmp_path: Path) -> None:
    one = Profile("GET /services/<uuid:service_id>", 1.0, id="a", duration=0.5, status=200)
    one.statements = [Statement("SELECT 1", 0.0, duration=0.25) for _ in range(3)]
    one.timings = {"database": 0.25}
    one.findings = [
        Finding("n_plus_one", "lazy_relationship", "Post.author", 3, message="Post.author, often")
    ]
    other = Profile("GET /not-driven", 1.0, id="b", duration=0.1, status=200)
    open_store(tmp_path / "profiles").add([one, other])

    seen = profiled.read(service(tmp_path / "profiles"), ["GET /services/{id}", "GET /"])
    assert seen.routes == (ProfiledRoute("GET /services/{id}", 1, 3, 3, pytest.approx(0.5)),)
    assert seen.findings == ("GET /services/<uuid:service_id>: Post.author, often",)


def test_a_report_that_cannot_be_read_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "profiles").write_text("not a store")
    with pytest.raises(ServiceError, match="the profilers' report could not be read"):
        profiled.read(service(tmp_path / "profiles"), ["GET /"])
