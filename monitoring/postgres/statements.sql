-- Run once, when the database is created. What a statement costs over all its calls:
--   SELECT calls, mean_exec_time, query FROM pg_stat_statements ORDER BY total_exec_time DESC LIMIT 20;
CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
GRANT pg_monitor TO CURRENT_USER;
