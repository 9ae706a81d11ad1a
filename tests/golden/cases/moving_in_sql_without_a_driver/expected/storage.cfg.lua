-- Where data go, and how long they are kept.

default_storage = "sql"

sql = { database = "prosody.sqlite", driver = "SQLite3" }
