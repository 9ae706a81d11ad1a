-- Where data go, and how long they are kept.

storage = { archive = "sql", muc_log = "sql", roster = "memory" }

sql = {
	database = "prosody";
	driver = "PostgreSQL";
	host = "postgresql";
	password = --[[secret]] "swordfish";
	username = "prosody";
}
