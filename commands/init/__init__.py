"""`--init`: ask for the settings, propose tables and columns, write `.env` and a query file.

Start at `run`, then `dialogue`, which has the questions. `schema` reads which tables there are,
`proposals` ranks them, `query_file` and `env_file` make the two texts.
"""
