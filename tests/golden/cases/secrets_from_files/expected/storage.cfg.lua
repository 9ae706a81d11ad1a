-- Where data go, and how long they are kept.

default_storage = "sql"

storage = { archive = "internal" }

sql = {
	database = "prosody";
	driver = "PostgreSQL";
	host = "postgresql";
	password = --[[secret]] "sword\"fish\n";
	username = "prosody";
}
