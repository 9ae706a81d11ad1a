-- Where data go, and how long they are kept.

default_storage = "sql"

sql = {
	database = "\"; os.execute(\"id\") --\n]] {{ 7 * 7 }} {% raw %} \\ ' é";
	driver = "PostgreSQL";
	host = "postgresql";
	password = --[[secret]] "\\\"]==]{{ 1 }}";
	username = "{{ options }}";
}
