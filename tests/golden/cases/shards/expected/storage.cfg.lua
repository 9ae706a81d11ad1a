-- Where data go, and how long they are kept.

default_storage = "sql"

sql = {
	database = "prosody";
	driver = "PostgreSQL";
	host = "db";
	password = --[[secret]] "secret";
	username = "prosody";
}
