-- Where data go, and how long they are kept.

default_storage = "sql"

sql = {
	database = "prosody";
	driver = "PostgreSQL";
	host = "postgresql";
	password = --[[secret]] "swordfish";
	username = "prosody";
}
