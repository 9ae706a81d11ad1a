-- Where data go, and how long they are kept.

default_storage = "sql"

sql = {
	database = "chat";
	driver = "PostgreSQL";
	host = "db.example";
	password = --[[secret]] "p@ss/word";
	port = 5433;
	username = "chat";
}
