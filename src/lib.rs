//! pgflow: flows inside PostgreSQL. Modules, SQL files in load order, `_PG_init`; nothing else.
::pgrx::pg_module_magic!();
