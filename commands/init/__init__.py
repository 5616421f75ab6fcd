"""`--init`: ask for the settings, propose tables and columns, write `.env` and a query file.

Start at `run`: it has the order of the questions. `terminal` asks them, `schema` reads which tables
there are, `proposals` ranks them, `query_file` and `env_file` make the two texts, and `new_files`
writes them.
"""
