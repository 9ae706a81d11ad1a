-- Reads all stores. This is the body of a function that takes what it needs, and returns a table: `hosts`, the storages of
-- each host by its name, `account`, and functions.
--
-- These take `visit`, a table of functions: `record` takes a record, `upload` the path, host and slot of an uploaded file,
-- `left_out` a sentence about data that are not read, `unreadable` a text about data that cannot be read, and its level
-- unless that is an error.
local options, stores, check_list, fail, say = ...;

local datamanager = stores.datamanager;
local datetime = require "util.datetime";
local json = require "util.json";
local split_jid = require "util.jid".prepped_split;
local lfs = require "lfs";
local parse_xml = require "util.xml".parse;
local st = require "util.stanza";
local uuid = require "util.uuid".generate;

-- The data directory to read.
local root = options.root or stores.data_dir;

-- How many rows of a database are in memory.
local page = 100;

local visit;

local function leave_out(text, ...)
	visit.left_out(text:format(...));
end

local function is_unreadable(text, ...)
	visit.unreadable(text:format(...));
end

-- The only account whose records are wanted, if any. Its uploads are in a store of a component.
local account;
if options.account then
	local user, host, resource = split_jid(options.account);
	if not user or resource then fail(64, "%s is not the address of an account", options.account); end
	account = { user = user, host = host, jid = user .. "@" .. host };
end

-- The uploads of that account, by host and slot.
local own_uploads = {};

local function is_wanted(host, store, user)
	return not account or host == account.host and user == account.user or store == "uploads" and not user;
end

local function write(record)
	if account and not record.user then
		if record.with ~= account.jid then return; end
		own_uploads[record.host .. "/" .. record.key] = true;
	end
	visit.record(record);
end

local reader = { hosts = {}, account = account };

---- Files

local function is_stanza(item)
	return type(item) == "table" and item.name and item.attr;
end

-- Items are stanzas without methods. Those of old versions have other names for attributes with a namespace.
local to_xml = getmetatable(st.stanza("x")).__tostring;

local function has_old_names(item)
	for name in pairs(item.attr) do
		if name:find("|", 1, true) then return true; end
	end
	for _, child in ipairs(item) do
		if type(child) == "table" and has_old_names(child) then return true; end
	end
end

local function read_list(path, host, store, user)
	local is_in_files = stores.driver_of(host, store) == "internal";
	local level, text = check_list(path, function (item)
		-- Lists of other things than stanzas are always files.
		if not is_stanza(item) then
			return write { host = host, store = store, user = user, item = item };
		end
		if not is_in_files then return leave_out("%s of %s in files, because its storage is another one", store, host); end
		local key, with = item.key or uuid(), item.with;
		local when = item.when or datetime.parse(item.attr.stamp);
		item.key, item.when, item.with, item.attr.stamp, item.attr.stamp_legacy = nil, nil, nil, nil, nil;
		write {
			host = host, store = store, user = user, key = key, when = when, with = with ~= "" and with or nil,
			value = to_xml(has_old_names(item) and st.deserialize(item) or item),
		};
	end);
	if level then visit.unreadable(text, level); end
end

local function read_keys(path, host, store, user)
	if stores.driver_of(host, store) ~= "internal" then
		return leave_out("%s of %s in files, because its storage is another one", store, host);
	end
	local data, problem = datamanager.load(user, host, store);
	if problem then return is_unreadable("Not saved: %s, which cannot be read", path); end
	if data then write { host = host, store = store, user = user, keys = data }; end
end

local function read_files(host)
	stores.each_file(root, host, function (path, store, user, extension)
		if not is_wanted(host, store, user) then return; end
		if extension == "dat" then
			local is_index = (store == "archive_cleanup" or store == "muc_log_cleanup") and user;
			if not is_index then read_keys(path, host, store, user); end
		elseif extension == "list" then
			read_list(path, host, store, user);
		elseif extension ~= "lidx" and extension ~= "torn" and not path:find("~$")
			and not stores.is_upload(store, user, extension)
		then
			leave_out("files in %s that are not of Prosody's stores", path:match("^(.*)/"));
		end
	end);
end

-- Whether a list has stanzas. Prosody's own modules write no others.
function reader.has_stanzas(path)
	local found;
	check_list(path, function (item)
		if found == nil then found = is_stanza(item); end
	end);
	return found;
end

---- Databases

local function value_of(kind, text)
	if kind == "json" then return json.decode(text); end
	if kind == "number" then return tonumber(text); end
	if kind == "boolean" then return text == "true"; end
	if kind == "xml" then
		local stanza = parse_xml(text);
		return stanza and st.preserialize(stanza);
	end
	return text;
end

local function read_user(database, host, user)
	local keys, current = nil, nil;
	local function end_store()
		if keys and next(keys) ~= nil then
			write { host = host, store = current, user = user ~= "" and user or nil, keys = keys };
		end
	end
	local rows = database.rows([[SELECT "store","key","type","value" FROM "prosody"
		WHERE "host"=? AND "user"=? ORDER BY "store"]], host, user);
	for _, row in ipairs(rows) do
		local store, key, value = row[1], row[2], value_of(row[3], row[4]);
		if store ~= current then
			end_store();
			keys, current = nil, store;
			if stores.driver_of(host, store) == "sql" then
				keys = {};
			else
				leave_out("%s of %s in %s, because its storage is another one", store, host, database.name);
			end
		end
		if keys and value == nil then
			is_unreadable("Not saved: %s of %s in %s, which cannot be read", store, host, database.name);
		elseif keys and key ~= "" then
			keys[key] = value;
		elseif keys then
			for other, inner in pairs(type(value) == "table" and value or {}) do keys[other] = inner; end
		end
	end
	end_store();
end

-- Reads a database with these hosts, by names.
local function read_database(database, hosts)
	for _, row in ipairs(account and {} or database.rows([[SELECT DISTINCT "host" FROM "prosody"]])) do
		if not hosts[row[1]] then leave_out("%s in %s, because it is not configured", row[1], database.name); end
	end
	for host in pairs(hosts) do
		if account then
			if host == account.host then read_user(database, host, account.user); end
		else
			read_user(database, host, "");
			local user, rows = "", nil;
			repeat
				rows = database.rows(([[SELECT DISTINCT "user" FROM "prosody"
					WHERE "host"=? AND "user">? ORDER BY "user" LIMIT %d]]):format(page), host, user);
				for _, row in ipairs(rows) do
					user = row[1];
					read_user(database, host, user);
				end
			until #rows < page;
		end
	end
	local condition = account and [[AND ("host"=? AND "user"=? OR "store"='uploads' AND "with"=?)]] or "";
	local query = ([[SELECT "sort_id","host","store","user","key","when","with","type","value"
		FROM "prosodyarchive" WHERE "sort_id">? %s ORDER BY "sort_id" LIMIT %d]]):format(condition, page);
	local last, rows = -1, nil;
	repeat
		if account then
			rows = database.rows(query, last, account.host, account.user, account.jid);
		else
			rows = database.rows(query, last);
		end
		for _, row in ipairs(rows) do
			local host, store, user = row[2], row[3], row[4];
			last = row[1];
			if not hosts[host] then
				leave_out("%s in %s, because it is not configured", host, database.name);
			elseif stores.driver_of(host, store) ~= "sql" then
				leave_out("%s of %s in %s, because its storage is another one", store, host, database.name);
			else
				write {
					host = host, store = store, user = user ~= "" and user or nil, key = row[5], when = tonumber(row[6]),
					with = row[7] ~= "" and row[7] or nil, type = row[8] ~= "xml" and row[8] or nil, value = row[9],
				};
			end
		end
	until #rows < page;
end

-- Other programs may read a database file beside the server only with a write-ahead log. Otherwise Prosody, which does
-- not wait for them, refuses logins meanwhile.
local function check_file(database)
	local mode = database.rows("PRAGMA journal_mode")[1][1];
	if mode == "wal" then return; end
	if options.served_since then
		error({ status = 69, name = "no write-ahead log", text = database.name }, 0);
	end
	if database.set_wal() then
		say("info", "%s has a write-ahead log now: later backups can be made beside the server", database.name);
	end
end

---- All

local by_database = {};
local names = stores.all_hosts();
for _, host in ipairs(names) do reader.hosts[host] = stores.drivers_of(host); end

local function open_databases(is_used)
	for _, host in ipairs(names) do
		for _, driver in ipairs(reader.hosts[host]) do
			if driver == "sql" then
				local given, name = stores.parameters_of(host);
				is_used[name] = true;
				-- To open a file that is not there would create it.
				if given.driver ~= "SQLite3" or lfs.attributes(name) then
					local database = stores.database_of(host);
					by_database[database] = by_database[database] or {};
					by_database[database][host] = true;
				end
			elseif driver ~= "internal" and driver ~= "null" and driver ~= "memory" then
				leave_out("the storage %s of %s, which `backup` cannot read", driver, host);
			end
		end
	end
end

-- Looks for data that are left out as a whole, and prepares SQLite's files. This is called before the others, and not
-- while a transaction has changed something.
function reader.prepare(its_visit)
	visit = its_visit;
	local is_used = {};
	open_databases(is_used);
	for database in pairs(by_database) do
		if database.driver == "SQLite3" then check_file(database); end
	end
	if account then return; end
	local unused = stores.data_dir .. "/prosody.sqlite";
	if not is_used[unused] and lfs.attributes(unused) then leave_out("%s, which is no configured storage", unused); end
	for _, name in ipairs(stores.list(stores.data_dir)) do
		local host = datamanager.path_decode(name);
		if name:find("^[%w%%]+%%2e[%w%%]+$") and not reader.hosts[host] then
			leave_out("%s in files, because it is not configured", host);
		end
	end
end

function reader.records(its_visit)
	visit = its_visit;
	open_databases({});
	for database, hosts in pairs(by_database) do
		if database.has_tables() then read_database(database, hosts); end
	end
	for _, host in ipairs(names) do read_files(host); end
end

-- After the records.
function reader.uploads(its_visit)
	for _, host in ipairs(names) do
		stores.each_file(root, host, function (path, store, slot, extension)
			if stores.is_upload(store, slot, extension) and (not account or own_uploads[host .. "/" .. slot]) then
				its_visit.upload(path, host, slot);
			end
		end);
	end
end

return reader;
