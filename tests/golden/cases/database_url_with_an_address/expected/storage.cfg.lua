-- Where data go, and how long they are kept.

default_storage = "sql"

sql = {
	database = "chat";
	driver = "MySQL";
	host = "2001:db8::3";
	password = --[[secret]] "swordfish";
	port = 3307;
	username = "chat";
}
