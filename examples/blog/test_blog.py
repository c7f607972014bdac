from blog import create_app


def test_posts_name_their_authors() -> None:
    page = create_app().test_client().get("/posts").text
    assert "On Author 3 by Author 3" in page
