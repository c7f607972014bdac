"""Tables of accounts, token families and sign-in attempts. All moments are the database's clock."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from sqlalchemy import BigInteger, CheckConstraint, DateTime, ForeignKey, String, func, text
from sqlalchemy.orm import Mapped, mapped_column

from pake.extensions import Base

Role = Literal["user", "admin"]
Moment = DateTime(timezone=True)


class User(Base):
    """An account."""

    __tablename__ = "users"
    __table_args__ = (CheckConstraint("role IN ('user', 'admin')", name="role"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    username: Mapped[str] = mapped_column(String(64), unique=True)
    email: Mapped[str | None] = mapped_column(String(254), unique=True)
    full_name: Mapped[str | None] = mapped_column(String(200))
    role: Mapped[Role] = mapped_column(String(16), server_default=text("'user'"))
    password_hash: Mapped[str] = mapped_column(String(200))
    disabled: Mapped[bool] = mapped_column(server_default=text("false"))
    tokens_valid_after: Mapped[datetime] = mapped_column(Moment, server_default=func.now())
    """Token families born before this moment are refused: it moves when the password changes."""
    created_at: Mapped[datetime] = mapped_column(Moment, server_default=func.now())
    writes: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    """Transactions of this account, counted while there is a replica: see pake/replica.py."""


class TokenFamily(Base):
    """One sign-in and every token that came from it by rotation."""

    __tablename__ = "token_families"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    refresh_jti: Mapped[str] = mapped_column(String(36))
    """The one refresh token that may still be used; any other of the family is a replay."""
    created_at: Mapped[datetime] = mapped_column(Moment, server_default=func.clock_timestamp())
    revoked_at: Mapped[datetime | None] = mapped_column(Moment)
    expires_at: Mapped[datetime] = mapped_column(Moment, index=True)


class SignInAttempts(Base):
    """Wrong passwords in a row for one name, whether or not an account has it."""

    __tablename__ = "sign_in_attempts"

    name_digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    """Keyed hash of the name: what people mistype here is sometimes their password."""
    failures: Mapped[int]
    last_failure_at: Mapped[datetime] = mapped_column(Moment, index=True)
