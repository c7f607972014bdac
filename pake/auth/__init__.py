"""Accounts: sign-in, tokens, passwords."""
