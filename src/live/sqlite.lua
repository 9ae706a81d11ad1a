-- Gives each SQLite file a write-ahead log, which it keeps: without one, Prosody can read and write nothing while another
-- program reads the file, and refuses logins. Another program's write is waited for.

local has_dbi, DBI = pcall(require, "DBI");
if not has_dbi then return; end
local log = require "util.logger".init("entrypoint");

-- How many milliseconds to wait for another writer. Meanwhile, the server stands still.
local patience = 1000;

-- Runs a statement. Returns the first value of its last row, or nothing and the reason.
local function run(connection, text)
	local statement, reason = connection:prepare(text);
	if not statement then return nil, reason; end
	local ok;
	ok, reason = statement:execute();
	if not ok then return nil, reason; end
	local value;
	for row in statement:rows() do value = row[1]; end
	statement:close();
	return value;
end

local connect = DBI.Connect;
function DBI.Connect(driver, database, ...)
	local connection, reason = connect(driver, database, ...);
	if connection and driver == "SQLite3" and database ~= ":memory:" then
		-- Not in a transaction, which the driver would begin.
		connection:autocommit(true);
		run(connection, "PRAGMA busy_timeout=" .. patience);
		local mode, problem = run(connection, "PRAGMA journal_mode=WAL");
		if mode ~= "wal" then
			log("warn", "%s cannot have a write-ahead log (%s): nobody can log in while another program reads it",
				database, problem or mode);
		end
	end
	return connection, reason;
end
