-- Where data go, and how long they are kept.

default_storage = "sql"

sql = { database = "/srv/data/chat.sqlite", driver = "SQLite3" }
