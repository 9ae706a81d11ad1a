-- Where data go, and how long they are kept.

default_storage = "sql"

sql = { database = "chat.sqlite", driver = "SQLite3" }
