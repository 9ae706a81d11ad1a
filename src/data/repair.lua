-- Repairs what crashes leave in lists, and rows that a database has twice. This is the body of a function that takes what it
-- needs.
local options, stores, check_list, fail, say = ...;

local lfs = require "lfs";

local is_old = prosody.version:find("^0%.");

-- The column that orders rows as Prosody reads them, by drivers. With others, it needs no unique rows.
local orders = { SQLite3 = "rowid", PostgreSQL = "ctid" };

local is_repaired, status = {}, 0;

local function repair_rows(database)
	local order = orders[database.driver];
	if is_repaired[database] or not order or not database.has_tables() then return; end
	is_repaired[database] = true;
	local is_beside = options.served_since and database.driver == "SQLite3";
	if is_beside and database.rows("PRAGMA journal_mode")[1][1] ~= "wal" then
		status = 2;
		return say("warning", "Not looked at: %s, because the server would refuse logins meanwhile", database.name);
	end
	local rows = database.rows([[SELECT "host","user","store","key",COUNT(*),
		CASE WHEN MIN("type")=MAX("type") AND MIN("value")=MAX("value") THEN 1 ELSE 0 END
		FROM "prosody" GROUP BY "host","user","store","key" HAVING COUNT(*)>1]]);
	database.commit();
	if #rows == 0 then return; end
	if is_beside then
		error({ status = 69, name = "rows twice beside a server", text = database.name }, 0);
	end
	local removed = 0;
	for _, row in ipairs(rows) do
		removed = removed + row[5] - 1;
		if tonumber(row[6]) == 0 then
			say("warning", "Removed: all values but the last one of %q in %s of %s on %s", row[4], row[3],
				row[2] == "" and "the host" or row[2], row[1]);
		end
	end
	if database.driver == "PostgreSQL" then database.execute([[LOCK TABLE "prosody" IN SHARE ROW EXCLUSIVE MODE]]); end
	database.execute(([[DELETE FROM "prosody" WHERE %s IN (SELECT "id" FROM (SELECT %s AS "id", ROW_NUMBER() OVER
		(PARTITION BY "host","user","store","key" ORDER BY %s DESC) AS "place" FROM "prosody") AS "ordered"
		WHERE "place">1)]]):format(order, order, order));
	-- As 13.0 does at a start, for one that runs.
	if not is_old then
		database.execute([[CREATE UNIQUE INDEX IF NOT EXISTS "prosody_unique_index"
			ON "prosody" ("host","user","store","key")]]);
	end
	if not database.commit() then fail(69, "the database %s: the rows cannot be removed", database.name); end
	say("info", "Repaired: %s had %d rows more than once", database.name, removed);
end

for _, host in ipairs(stores.all_hosts()) do
	stores.each_file(stores.data_dir, host, function (path, _, _, extension)
		if extension ~= "list" then return; end
		local level, text = check_list(path, function () end);
		if level then say(level, "%s", text); end
		if level and level ~= "warning" then status = 2; end
	end);
	for _, storage in ipairs(options.action == "repair" and stores.drivers_of(host) or {}) do
		local given, name = stores.parameters_of(host);
		-- To open a file that is not there would create it.
		if storage == "sql" and (given.driver ~= "SQLite3" or lfs.attributes(name)) then
			repair_rows(stores.database_of(host));
		end
	end
end
if status == 0 then say("info", "Nothing is left to repair"); end
return status;
