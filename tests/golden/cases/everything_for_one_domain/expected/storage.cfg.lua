-- Where data go, and how long they are kept.

default_storage = "internal"

storage = { archive = "sql" }

sql = {
	database = "chat";
	driver = "MySQL";
	host = "db.example";
	password = --[[secret]] "swordfish";
	port = 3307;
	username = "chat";
}

archive_expires_after = 2592000

muc_log_expires_after = "never"

default_archive_policy = "roster"
