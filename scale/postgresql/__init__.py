"""Our way to PostgreSQL, as Django asks for one."""
