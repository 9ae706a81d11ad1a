-- Where Prosody keeps its stores. This is the body of a function that takes what it needs, and returns a table.
local options, fail, say = ...;

local config = require "core.configmanager";
-- Not its replacement for modules of old, which asks the storages.
local datamanager = require "core.storagemanager".olddm;
local lfs = require "lfs";
local resolve = require "util.paths".resolve_relative_path;

local data_dir = prosody.paths.data;

-- Returns the name by which the configuration knows a store. Items of PEP and pubsub nodes have one each.
local function name_of(store)
	return store:find("^pep_") and "pep_data" or store:find("^pubsub_") and store ~= "pubsub_nodes" and "pubsub_data"
		or store;
end

-- Returns the name of the storage that the configuration has for a store.
local function driver_of(host, store)
	local storage = config.get(host, "storage");
	return type(storage) == "string" and storage or type(storage) == "table" and storage[name_of(store)]
		or config.get(host, "default_storage") or "internal";
end

-- Returns the names of all storages that the configuration has for a host, as a sorted list.
local function drivers_of(host)
	local found, names = { [driver_of(host, "")] = true }, {};
	local storage = config.get(host, "storage");
	for _, name in pairs(type(storage) == "table" and storage or {}) do found[name] = true; end
	for name in pairs(found) do names[#names + 1] = name; end
	table.sort(names);
	return names;
end

-- Returns the names of the configured hosts, sorted.
local function all_hosts()
	local names = {};
	for host in pairs(config.getconfig()) do
		if host ~= "*" then names[#names + 1] = host; end
	end
	table.sort(names);
	return names;
end

-- Returns the store that lists, by day, who has items to expire, and the option that says when. Only storages in files
-- have such a store.
local function expiry_of(host, store)
	if store == (config.get(host, "archive_store") or "archive") then return "archive_cleanup", "archive_expires_after"; end
	if store == "muc_log" then return "muc_log_cleanup", "muc_log_expires_after"; end
	if store == "uploads" then return nil, "http_file_share_expires_after"; end
end

-- Returns the sorted names in a directory. There are none if it does not exist.
local function list(path)
	local names = {};
	if lfs.attributes(path, "mode") ~= "directory" then return names; end
	local ok, next_name, state = pcall(lfs.dir, path);
	if not ok then fail(77, "%s", next_name); end
	for name in next_name, state do
		if name ~= "." and name ~= ".." then names[#names + 1] = name; end
	end
	table.sort(names);
	return names;
end

-- Calls `visit` with the path, the store, the user or `nil`, and the extension of each file of a host, in a data directory.
local function each_file(root, host, visit)
	local folder = root .. "/" .. datamanager.path_encode(host);
	for _, name in ipairs(list(folder)) do
		local path = folder .. "/" .. name;
		if lfs.attributes(path, "mode") ~= "directory" then
			local store, extension = name:match("^(.+)%.(%w+)$");
			visit(path, datamanager.path_decode(store or name), nil, extension);
		else
			for _, inner in ipairs(list(path)) do
				local user, extension = inner:match("^(.+)%.(%w+)$");
				visit(path .. "/" .. inner, datamanager.path_decode(name), datamanager.path_decode(user or inner), extension);
			end
		end
	end
end

-- Whether a file that `each_file` has found is an uploaded one. Those are files whatever the storage.
local function is_upload(store, slot, extension)
	return extension == "bin" and store == "http_file_share" and slot;
end

---- Databases

-- By parameters, so that hosts with one database share a connection, and a transaction.
local databases = {};

-- Where each driver's database lists its tables: what precedes the names.
local tables = {
	SQLite3 = [["sqlite_master" WHERE "name"]],
	PostgreSQL = [["pg_tables" WHERE "schemaname"=current_schema() AND "tablename"]],
	MySQL = [["information_schema"."tables" WHERE "table_schema"=DATABASE() AND "table_name"]],
};

local at_first = {
	PostgreSQL = {
		"SELECT set_config('default_transaction_isolation', 'repeatable read', false)",
		"SELECT set_config('client_encoding', 'UTF8', false)",
	},
	MySQL = { "SET NAMES utf8mb4" },
	-- In KiB. With SQLite's 2 MB, what is restored has its indexes written and read again all the time.
	SQLite3 = options.action ~= "backup" and { "PRAGMA cache_size=-32768" } or nil,
};

local function parameters_of(host)
	local given = config.get(host, "sql") or { driver = "SQLite3" };
	local name = given.database;
	if given.driver == "SQLite3" then name = resolve(data_dir, name or "prosody.sqlite"); end
	return given, name;
end

-- What tells the database of a host from others.
local function identity_of(host)
	local given, name = parameters_of(host);
	return table.concat({ given.driver, name, given.host or "", tostring(given.port), given.username or "" }, "\0");
end

local function place_of(host, store)
	local driver = driver_of(host, store);
	return driver == "sql" and identity_of(host) or driver;
end

-- Where the stores of each host are, by the names that the configuration knows; all others have the name "".
local function places()
	local found = {};
	for _, host in ipairs(all_hosts()) do
		found[host] = { [""] = place_of(host, "") };
		local storage = config.get(host, "storage");
		for store in pairs(type(storage) == "table" and storage or {}) do found[host][store] = place_of(host, store); end
	end
	return found;
end

-- Whether a store is where it was according to `places`.
local function is_in_place(before, host, store)
	local found = before[host];
	return found and (found[name_of(store)] or found[""]) == place_of(host, store);
end

-- Returns the connection to the database of a host. The transaction begins with the first statement.
local function database_of(host)
	local given, name = parameters_of(host);
	local id = identity_of(host);
	if databases[id] then return databases[id]; end
	local is_file = given.driver == "SQLite3";

	-- Returns what the work with the database returns. The entrypoint ends this program if a server does not answer. Files
	-- may be slow.
	local function ask(work, ...)
		if is_file then return work(...); end
		say("asks", "%s", name);
		local results = table.pack(work(...));
		say("asked", "%s", name);
		return table.unpack(results, 1, results.n);
	end

	local function check(result, problem)
		if result then return result; end
		fail(is_file and options.action ~= "backup" and 73 or 69, "the database %s: %s", name, problem or "it does not answer");
	end

	local connect = require "DBI".Connect;
	local connection = check(ask(connect, given.driver, name, given.username, given.password, given.host, given.port));
	connection:autocommit(false);
	local database = { name = name, driver = given.driver, connection = connection, ask = ask, check = check };
	local prepared = {};

	local function run(query, ...)
		local text = given.driver == "MySQL" and query:gsub('"', "`") or query;
		local statement = prepared[query] or check(ask(connection.prepare, connection, text));
		check(ask(statement.execute, statement, ...));
		return statement;
	end

	function database.execute(query, ...)
		run(query, ...):close();
	end

	-- Executes a statement that returns no rows and will be executed again.
	function database.execute_again(query, ...)
		prepared[query] = run(query, ...);
	end

	function database.rows(query, ...)
		local statement, rows = run(query, ...), {};
		check(pcall(function ()
			for row in statement:rows() do rows[#rows + 1] = { table.unpack(row) }; end
		end));
		statement:close();
		return rows;
	end

	-- Returns whether there was a transaction, and it is kept.
	function database.commit()
		return ask(connection.commit, connection);
	end

	function database.has_tables()
		local query = "SELECT COUNT(*) FROM " .. tables[given.driver] .. " IN ('prosody','prosodyarchive')";
		return tonumber(database.rows(query)[1][1]) == 2;
	end

	-- Sets SQLite's write-ahead log, with which others may read beside the server. It stays in the file. Returns whether that
	-- is possible there.
	function database.set_wal()
		database.commit();
		connection:autocommit(true);
		-- It fails while another program reads the file.
		local ok, rows = pcall(database.rows, "PRAGMA journal_mode=WAL");
		connection:autocommit(false);
		return ok and rows[1] and rows[1][1] == "wal";
	end

	for _, query in ipairs(at_first[given.driver] or {}) do database.execute(query); end
	database.commit();
	databases[id] = database;
	return database;
end

return {
	data_dir = data_dir,
	datamanager = datamanager,
	driver_of = driver_of,
	drivers_of = drivers_of,
	all_hosts = all_hosts,
	expiry_of = expiry_of,
	list = list,
	each_file = each_file,
	is_upload = is_upload,
	places = places,
	is_in_place = is_in_place,
	parameters_of = parameters_of,
	database_of = database_of,
	databases = databases,
};
