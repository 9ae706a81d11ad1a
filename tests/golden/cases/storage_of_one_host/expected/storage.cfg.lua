-- Where data go, and how long they are kept.

sql = {
	database = "prosody";
	driver = "PostgreSQL";
	host = "postgresql";
	password = --[[secret]] "swordfish";
	username = "prosody";
}
