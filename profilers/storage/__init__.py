"""The store's inside: tables, batches, answers and upkeep, on SQLite or PostgreSQL."""
