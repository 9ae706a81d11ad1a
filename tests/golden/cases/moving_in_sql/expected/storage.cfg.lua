-- Where data go, and how long they are kept.

default_storage = "sql"

storage = { archive = "internal" }

sql = {
	database = "chat";
	driver = "PostgreSQL";
	password = --[[secret]] "SECRET";
}
