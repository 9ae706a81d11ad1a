-- Where data go, and how long they are kept.

default_storage = "sql"

sql = {
	database = "prosody";
	driver = "MySQL";
	host = "mysql";
	password = --[[secret]] "swordfish";
	username = "prosody";
}
