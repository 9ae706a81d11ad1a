-- Logs in to a database like mod_storage_sql, and prints the result: one word, and the driver's message.
local function item()
	local length = tonumber(io.read("*l"))
	-- The parent process has gone.
	if not length then os.exit(1) end
	if length > 0 then return io.read(length) end
	return length == 0 and "" or nil
end
local driver = item()
local function say(word, why)
	io.write(word, "\n", tostring(why or ""))
	os.exit(0)
end
local found, DBI = pcall(require, "DBI")
-- Loads the driver's library while the parent process checks whether the server answers.
if found then pcall(require, "dbd." .. driver:lower()) end
local name, username, password, host, port = item(), item(), item(), item(), item()
if not found then say("missing", DBI) end
local called, connection, why = pcall(DBI.Connect, driver, name, username, password, host, tonumber(port))
if not called then say("missing", connection) end
if not connection then say("refused", why) end
-- The number of shards, after it is set, if it shall be: `count` and nothing if there is none yet.
if shards then
	connection:autocommit(true)
	for _, query in ipairs(shards) do
		local statement, reason = connection:prepare(query)
		local done, problem = statement and statement:execute()
		if not done then say("failed", reason or problem) end
	end
	local statement = connection:prepare("SELECT count FROM prosody_entrypoint_shards")
	local row = statement and statement:execute() and statement:fetch()
	say("count", row and row[1])
end
local function has_rows(query, ...)
	local statement = connection:prepare(query)
	return statement and statement:execute(...) and statement:fetch()
end
-- For this driver, mod_storage_sql requires a manual upgrade (upgrade_table). With others it upgrades by itself.
if driver == "MySQL" then
	local charset = has_rows("SHOW CHARACTER SET WHERE `Charset` = 'utf8mb4'") and "utf8mb4" or "utf8"
	if has_rows("SHOW COLUMNS FROM `prosody` WHERE `Field` = 'value' AND `Type` = 'text'")
		or has_rows("SHOW INDEX FROM `prosodyarchive` WHERE `key_name` = 'prosodyarchive_index' AND `non_unique` = 0")
		or has_rows("SELECT 1 FROM `information_schema`.`columns` WHERE `TABLE_NAME` LIKE 'prosody%' AND `TABLE_SCHEMA` = ? "
			.. "AND (`CHARACTER_SET_NAME` <> ? OR `COLLATION_NAME` <> ?)", name, charset, charset .. "_bin")
	then say("old") end
elseif is_13 then
	-- It makes this index, and cannot if rows have the same keys. Many rows take long without an index.
	local name = " = 'prosody_unique_index'"
	local is_there = driver == "SQLite3" and has_rows("SELECT 1 FROM sqlite_master WHERE name" .. name)
		or driver == "PostgreSQL" and has_rows("SELECT 1 FROM pg_indexes WHERE schemaname = current_schema() AND indexname" .. name)
	if driver == "PostgreSQL" then has_rows("SELECT set_config('statement_timeout', '5000', false)") end
	if not is_there and has_rows([[SELECT 1 FROM "prosody" GROUP BY "host", "user", "store", "key" HAVING COUNT(*) > 1 LIMIT 1]])
	then say("twice") end
end
say("ready")
