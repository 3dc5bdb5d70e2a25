"""The database: its engine, its clock, its tables and its migrations."""
