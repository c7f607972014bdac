"""A blog with an N+1: the page of posts asks for the author of each post one by one.

FLASK_PROFILE=queries,nplusone flask --app blog run
pytest --nplusone=error
"""

from flask import Flask, render_template_string
from sqlalchemy import ForeignKey, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from sqlalchemy.pool import StaticPool

from profilers import Profilers


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Post(Base):
    __tablename__ = "post"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    author_id: Mapped[int] = mapped_column(ForeignKey("author.id"))
    author: Mapped[Author] = relationship()


PAGE = "<ul>{% for post in posts %}<li>{{ post.title }} by {{ post.author.name }}</li>{% endfor %}</ul>"


def create_app() -> Flask:
    app = Flask(__name__)
    Profilers(app)
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        authors = [Author(name=f"Author {number}") for number in range(10)]
        session.add_all(Post(title=f"On {author.name}", author=author) for author in authors)
        session.commit()

    @app.get("/posts")
    def posts() -> str:
        with Session(engine) as session:
            found = session.scalars(select(Post).order_by(Post.title)).all()
            return render_template_string(PAGE, posts=found)

    return app
