-- Where data go, and how long they are kept.

default_storage = "sql"

sql = {
	database = "chat";
	driver = "PostgreSQL";
	host = "/run/postgresql";
	username = "chat";
}
