-- Reads an archive into an empty server. This is the body of a function that takes what it needs.
--
-- Files are written into `.restore` in the data directory. When the archive has been read to its end, that becomes
-- `.restoring`, the transactions of databases are committed, and the directories of hosts are moved to their places. If
-- this is interrupted, `.restoring` stays, and the server does not start.
--
-- A migration has the archive from another process, which reads the same data directory and another storage. Its
-- directories are `.migrate` and `.migrating`. Stores that stay where they are are not touched, nor are uploaded files.
local options, input, stores, check_list, load_read, encode, decode, open_reader, fail, say, progress = ...;

local config = require "core.configmanager";
local datamanager = stores.datamanager;
local datetime = require "util.datetime";
local events = require "util.events";
local json = require "util.json";
local lfs = require "lfs";
local lxp = require "lxp";
local parse_xml = require "util.xml".parse;
local serialize = require "util.serialization".serialize;
local sha256 = require "util.hashes".sha256;
local st = require "util.stanza";
local storagemanager = require "core.storagemanager";
local uuid = require "util.uuid".generate;

-- The size limit of a record, in bytes. `backup` has the same.
local largest = 64 * 1024 * 1024;

-- How many rows are inserted at once, and how many bytes.
local rows_at_once, bytes_at_once = 50, 256 * 1024;

-- How many bytes of lists are in memory.
local waiting_bytes = 4 * 1024 * 1024;

local is_old = prosody.version:find("^0%.");
local migrates = options.migrates;
local name = migrates and "/.migrat" or "/.restor";
local place, moving = stores.data_dir .. name .. "e", stores.data_dir .. name .. "ing";

-- In a migration, where the stores are until now.
local before;

-- Reads what has been written.
local reader = load_read({ root = place }, stores, check_list, fail, say);

local function remove(path)
	if lfs.symlinkattributes(path, "mode") == "directory" then
		for _, name in ipairs(stores.list(path)) do remove(path .. "/" .. name); end
	end
	local ok, problem = os.remove(path);
	if not ok and lfs.symlinkattributes(path) then fail(73, "%s", problem); end
end

-- An earlier restore was interrupted in its last step. What it has moved is removed.
local is_again = lfs.attributes(moving, "mode") == "directory";

local function check(ok, problem)
	if not ok then fail(73, "the files cannot be written: %s", problem); end
	return ok;
end

---- Databases

local pending = {};

local function insert_pending(database, name)
	local rows = pending[database][name];
	if not rows or #rows == 0 then return; end
	local columns = name == "prosody" and { "host", "user", "store", "key", "type", "value" }
		or { "host", "user", "store", "key", "type", "value", "when", "with" };
	local values = {};
	for _, row in ipairs(rows) do table.move(row, 1, #columns, #values + 1, values); end
	local row = "(" .. ("?,"):rep(#columns - 1) .. "?)";
	local query = ([[INSERT INTO "%s" ("%s") VALUES %s]]):format(name, table.concat(columns, '","'),
		(row .. ","):rep(#rows - 1) .. row);
	local execute = #rows == rows_at_once and database.execute_again or database.execute;
	execute(query, table.unpack(values));
	pending[database][name] = { size = 0 };
end

local function insert(database, name, row)
	pending[database] = pending[database] or {};
	local rows = pending[database][name] or { size = 0 };
	pending[database][name] = rows;
	rows[#rows + 1] = row;
	rows.size = rows.size + #row[6];
	if #rows == rows_at_once or rows.size >= bytes_at_once then insert_pending(database, name); end
end

-- Returns JSON that Prosody reads. Its own has only 14 digits of a number, and ours has extensions.
local function json_of(value)
	local text = encode(value);
	return text:find("\"$", 1, true) and json.encode(value) or text;
end

local function insert_keys(database, record)
	local user, others = record.user or "", {};
	local function put(key, kind, text)
		insert(database, "prosody", { record.host, user, record.store, key, kind, text });
	end
	for key, value in pairs(record.keys) do
		if type(key) ~= "string" or key == "" then
			others[key] = value;
		elseif type(value) == "table" then
			put(key, "json", json_of(value));
		else
			put(key, type(value), type(value) == "number" and json_of(value) or tostring(value));
		end
	end
	if next(others) ~= nil then put("", "json", json_of(others)); end
end

---- Files

-- By path, texts to append, and the size of all of them. The items of a database are in the order of their time, so each
-- would need its file opened.
local waiting, waiting_size = {}, 0;

-- The files of stores that list, by day, who has items to expire. Each is begun, and not ended. Of each, the users that
-- wait to be written.
local indexes = {};

local function write_waiting()
	for path, texts in pairs(waiting) do
		local file = check(io.open(path, "a"));
		check(file:write(table.concat(texts)));
		check(file:close());
	end
	waiting, waiting_size = {}, 0;
	for path in pairs(indexes) do indexes[path] = {}; end
end

local function append(path, text)
	local texts = waiting[path] or {};
	waiting[path] = texts;
	texts[#texts + 1] = text;
	waiting_size = waiting_size + #text;
	if waiting_size >= waiting_bytes then write_waiting(); end
end

local function index(store, host, user, when)
	local path = datamanager.getpath(datetime.date(math.floor(when)), host, store, "dat", true);
	if not indexes[path] then append(path, "return {\n"); end
	local users = indexes[path] or {};
	indexes[path] = users;
	if users[user] then return; end
	users[user] = true;
	append(path, ("\t[%q] = true;\n"):format(user));
end

local function write_item(record, text)
	append(datamanager.getpath(record.user, record.host, record.store, "list", true), "item(" .. text .. ");\n");
end

-- Returns text in Lua without line breaks: Prosody takes a line that begins with `item` for the next one.
local function quote(text)
	text = ("%q"):format(text);
	return text:find("\n", 1, true) and text:gsub("\\\n", "\\n") or text;
end

-- Prosody writes and reads no deeper tables. A stanza has two for each level.
local deepest = 126;

-- The text in Lua of the stanza that is read, its depth, and other members of its table and of its attributes.
local parts, depth, more, more_attributes;

local function refuse(parser)
	parser:stop();
end

-- As `util.xml` does, which takes three times as long with Prosody's serialization.
local handlers = { StartDoctypeDecl = refuse, Comment = refuse, ProcessingInstruction = refuse };

function handlers.StartElement(parser, name, attributes)
	if depth == deepest then return refuse(parser); end
	local namespace, plain = name:match("^(.-)\1(.*)$");
	parts[#parts + 1] = "{name=" .. quote(plain or name) .. ";" .. (depth == 0 and more or "") .. "attr={";
	if namespace then parts[#parts + 1] = "xmlns=" .. quote(namespace) .. ";"; end
	for _, key in ipairs(attributes) do
		parts[#parts + 1] = "[" .. quote(key:gsub("^http://www%.w3%.org/XML/1998/namespace\1", "xml:")) .. "]="
			.. quote(attributes[key]) .. ";";
	end
	parts[#parts + 1] = depth == 0 and more_attributes or "};";
	depth = depth + 1;
end

function handlers.CharacterData(_, text)
	parts[#parts + 1] = quote(text) .. ";";
end

function handlers.EndElement()
	depth = depth - 1;
	parts[#parts + 1] = depth == 0 and "}" or "};";
end

-- Returns the text in Lua of an item, or `nil` if its value is no XML.
local function item_of(record)
	more = ("key=%s;when=%s;"):format(quote(record.key), serialize(record.when));
	if record.with then more = more .. "with=" .. quote(record.with) .. ";"; end
	more_attributes = "stamp=" .. quote(datetime.datetime(math.floor(record.when))) .. ";};";
	parts, depth = {}, 0;
	local parser = lxp.new(handlers, "\1");
	return parser:parse(record.value) and parser:parse() and table.concat(parts);
end

---- Hosts

local hosts = {};
for _, host in ipairs(stores.all_hosts()) do hosts[host] = true; end
for old, new in pairs(options.hosts) do
	if not hosts[new] then fail(78, "--host %s=%s: there is no host %s in the configuration", old, new, new); end
end

-- A server that has run, and that nobody has used, has written this.
local function is_nothing(store)
	return store == "cron" or store == "upload_stats";
end

-- Whether a migration leaves a file where it is, as nothing in its place is written.
local function remains(path, host, store, extension)
	return extension ~= "dat" and extension ~= "list" or stores.driver_of(host, store) ~= "internal"
		or stores.is_in_place(before, host, store) or extension == "list" and not reader.has_stanzas(path);
end

local function check_files(host)
	stores.each_file(stores.data_dir, host, function (path, store, user, extension)
		if migrates and remains(path, host, store, extension) then return; end
		if user or not is_nothing(store) then
			fail(73, "%s has data, and `%s` overwrites none: %s", host, options.action, path);
		end
	end);
end

local function check_database(host)
	local database = stores.database_of(host);
	if not database.has_tables() then
		-- Prosody makes them. In prosodyctl, all hosts share their events, so one host would get another's provider.
		database.commit();
		prosody.hosts[host].events = events.new();
		database.ask(function ()
			storagemanager.initialize_host(host);
			local accounts = storagemanager.open(host, "accounts");
			return accounts and accounts:get(".");
		end);
		database.commit();
		database.check(database.has_tables(), "Prosody cannot make its tables");
	end
	for _, its_table in ipairs { "prosody", "prosodyarchive" } do
		local query = ([[SELECT DISTINCT "store" FROM "%s" WHERE "host"=?]]):format(its_table);
		for _, row in ipairs(database.rows(query, host)) do
			local store = row[1];
			if not migrates or stores.driver_of(host, store) == "sql" and not stores.is_in_place(before, host, store) then
				if not is_again and not is_nothing(store) then
					fail(73, "%s has data, and `%s` overwrites none: %s in the database %s", host, options.action, store,
						database.name);
				end
				database.execute(([[DELETE FROM "%s" WHERE "host"=? AND "store"=?]]):format(its_table), host, store);
			end
		end
	end
end

-- By name in the archive, the name here.
local targets, taken = {}, {};

local function target_of(old)
	if targets[old] then return targets[old]; end
	local host = options.hosts[old] or old;
	if not hosts[host] then
		error({ status = 78, name = "unknown host", text = old }, 0);
	end
	if taken[host] then fail(64, "%s and %s of the archive would both be %s", taken[host], old, host); end
	if not is_again then check_files(host); end
	for _, driver in ipairs(stores.drivers_of(host)) do
		if driver == "sql" then check_database(host); end
	end
	targets[old], taken[host] = host, old;
	return host;
end

---- Records

local counts, lost, expired = { records = 0, files = 0, accounts = 0, moved = 0 }, {}, {};

local function lose(text, ...)
	text = text:format(...);
	lost[text] = (lost[text] or 0) + 1;
end

---- Migrations

-- By store and host, how many records have been written, and the sum of their digests, which does not depend on their order.
local totals = {};

-- Returns a value as a database has it where JSON cannot be exact: with 14 digits.
local function rounded(value)
	if math.type(value) == "float" then return tonumber(("%.14g"):format(value)); end
	if type(value) ~= "table" then return value; end
	local copy = {};
	for key, inner in pairs(value) do copy[rounded(key)] = rounded(inner); end
	return copy;
end

local function add_to(its_totals, record)
	if record.keys and next(record.keys) == nil then return; end
	local value = record.keys and rounded(record.keys);
	if not value then
		local is_text = stores.driver_of(record.host, record.store) == "sql";
		-- In files, the attributes of XML have any order.
		value = is_text and record.value or st.preserialize(parse_xml(record.value));
	end
	local digest = sha256(encode {
		record.host, record.store, record.user or "", value, record.key or "", record.with or "", (record.when or 0) + 0.0,
	});
	local id = record.store .. " on " .. record.host;
	local total, first, second = its_totals[id] or { 0, 0, 0 }, ("<i8i8"):unpack(digest);
	its_totals[id] = { total[1] + 1, total[2] + first, total[3] + second };
end

-- Compares what has been written with what has been read.
local function compare()
	local written, others = {}, {};
	local function other(text) others[#others + 1] = text; end
	reader.records {
		record = function (record)
			if record.item == nil and not stores.is_in_place(before, record.host, record.store) then add_to(written, record); end
		end,
		left_out = function () end,
		unreadable = other,
	};
	for id, total in pairs(totals) do
		local copy = written[id] or { 0 };
		if table.concat(total, " ") ~= table.concat(copy, " ") then
			other(("%s has %d records, and its copy has %d, or others"):format(id, total[1], copy[1]));
		end
	end
	table.sort(others);
	if others[1] then fail(71, "nothing is migrated, because the copy differs: %s", table.concat(others, "; ")); end
end

---- Expiry

local units = { h = 3600, d = 86400, w = 7 * 86400, m = 30 * 86400, y = 365 * 86400 };

-- Returns the time before which a host expires items at its next start, or `false` for never.
local function limit_of(host, option)
	local number, unit = tostring(config.get(host, option) or "1w"):lower():match("^%s*(%d+)[%s.0]*(%l*)");
	if not number or tonumber(number) == 0 then return false; end
	local default = is_old and option:find("^http") == nil and units.d or 1;
	return os.time() - tonumber(number) * (unit:find("^mi") and 60 or units[unit:sub(1, 1)] or default);
end

local limits = {};

local function look_for_expired(record, option)
	local id = record.host .. "\0" .. option;
	if limits[id] == nil then limits[id] = limit_of(record.host, option); end
	if limits[id] and record.when < limits[id] then expired[id] = (expired[id] or 0) + 1; end
end

local function restore_item(record, driver)
	local cleanup, option = stores.expiry_of(record.host, record.store);
	if option and not migrates then look_for_expired(record, option); end
	record.key = record.key or uuid();
	local database = driver == "sql" and stores.database_of(record.host);
	-- Other databases than SQLite have whole seconds. 0.12 cannot read anything else.
	if is_old or database and database.driver ~= "SQLite3" then record.when = math.floor(record.when); end
	if database then
		insert(database, "prosodyarchive", {
			record.host, record.user or "", record.store, record.key, record.type or "xml", record.value, record.when,
			record.with or "",
		});
		return true;
	end
	local item = not record.type and item_of(record);
	if not item then return lose("items of %s on %s, which are not stanzas", record.store, record.host); end
	write_item(record, item);
	if cleanup and record.user and stores.driver_of(record.host, cleanup) == "internal" then
		index(cleanup, record.host, record.user, record.when);
	end
	return true;
end

local function is_text(value)
	return type(value) == "string" and value ~= "";
end

local function is_text_or_nil(value)
	return value == nil or type(value) == "string";
end

local function is_item(record)
	local when = type(record.when) == "number" and record.when;
	return when and when > -1e11 and when < 1e11 and type(record.value) == "string" and is_text_or_nil(record.key)
		and is_text_or_nil(record.with) and is_text_or_nil(record.type);
end

local function restore(line)
	local ok, record = pcall(decode, line);
	if not ok or type(record) ~= "table" or not is_text(record.host) or not is_text(record.store)
		or not (record.user == nil or is_text(record.user))
		or not (type(record.keys) == "table" or record.item ~= nil or is_item(record))
	then
		fail(65, "the archive has a record that is not valid, after %d others", counts.records);
	end
	counts.records = counts.records + 1;
	record.host = target_of(record.host);
	local driver = stores.driver_of(record.host, record.store);
	if migrates and (record.item ~= nil or stores.is_in_place(before, record.host, record.store)) then return; end
	if record.item ~= nil then
		write_item(record, serialize(record.item));
	elseif driver ~= "internal" and driver ~= "sql" then
		return lose("%s of %s, whose storage is %s", record.store, record.host, driver);
	elseif not record.keys then
		if not restore_item(record, driver) then return; end
	elseif driver == "sql" then
		insert_keys(stores.database_of(record.host), record);
	else
		check(datamanager.store(record.user, record.host, record.store, record.keys));
	end
	if migrates then add_to(totals, record); end
	counts.moved = counts.moved + 1;
	progress("%d records", counts.moved);
	if record.store == "accounts" and record.user then counts.accounts = counts.accounts + 1; end
end

---- All

remove(place);
check(lfs.mkdir(place));
datamanager.set_data_path(place);

local next_member, read = open_reader(input);

local function read_text(name, size)
	if size > largest then fail(65, "the archive has a %s that is too large", name); end
	local text = {};
	for content in read do text[#text + 1] = content; end
	local ok, value = pcall(decode, table.concat(text));
	if not ok or type(value) ~= "table" then fail(65, "the archive has a %s that cannot be read", name); end
	return value;
end

local function read_records()
	-- The beginning of a line, in pieces, and its size.
	local parts, size = {}, 0;
	for content in read do
		local start = 1;
		for stop in content:gmatch("()\n") do
			parts[#parts + 1] = content:sub(start, stop - 1);
			local line = table.concat(parts);
			parts, size, start = {}, 0, stop + 1;
			restore(line);
		end
		parts[#parts + 1] = content:sub(start);
		size = size + #content - start + 1;
		if size > largest then fail(65, "the archive has a record of more than %d bytes", largest); end
	end
	if size > 0 then fail(65, "the archive has a record that is cut off"); end
end

local function read_upload(name)
	local folder, slot = name:match("^uploads/([%w%%]+)/([%w%%]+)%.bin$");
	local host, file = datamanager.path_decode(folder), datamanager.path_decode(slot);
	if not folder or datamanager.path_encode(host) ~= folder or datamanager.path_encode(file) ~= slot then
		fail(65, "the archive has a file with a name that `backup` does not write: %s", name);
	end
	local out = check(io.open(datamanager.getpath(file, target_of(host), "http_file_share", "bin", true), "wb"));
	for content in read do check(out:write(content)); end
	check(out:close());
	counts.files = counts.files + 1;
	progress("%d records, %d uploaded files", counts.records, counts.files);
end

local function read_archive()
	local name, size = next_member();
	if name ~= "manifest.json" then fail(65, "this is not an archive of `backup`"); end
	local manifest = read_text(name, size);
	if manifest.format ~= 1 then
		fail(65, "the archive has the format %s, of a newer version: restore it with that one", tostring(manifest.format));
	end
	for old in pairs(options.hosts) do
		-- That of an account names no hosts.
		if not manifest.account and not (type(manifest.hosts) == "table" and manifest.hosts[old]) then
			fail(64, "--host %s=%s: the archive has no host %s", old, options.hosts[old], old);
		end
	end
	before = manifest.places;
	local members = 0;
	for its_name, its_size in next_member do
		if its_name == "end.json" then
			local total = read_text(its_name, its_size);
			if total.records ~= counts.records or total.files ~= counts.files then
				fail(65, "the archive is not whole: it has %d records and %d files, and should have %s and %s", counts.records,
					counts.files, tostring(total.records), tostring(total.files));
			end
			return manifest;
		end
		members = members + 1;
		if its_name == ("records/%06d.ndjson"):format(members) then read_records(); else read_upload(its_name); end
	end
	fail(65, "the archive is cut off: it has no end");
end

-- Moves a file or directory. Of a directory that is there already, the files that are not in the other stay.
local function move(from, to)
	if lfs.attributes(from, "mode") == "directory" and lfs.attributes(to, "mode") == "directory" then
		for _, name in ipairs(stores.list(from)) do move(from .. "/" .. name, to .. "/" .. name); end
	elseif lfs.attributes(from) then
		check(os.rename(from, to));
		-- Prosody makes the index of a list again.
		if to:find("%.list$") then os.remove((to:gsub("list$", "lidx"))); end
	end
end

local function finish()
	for path in pairs(indexes) do append(path, "};\n"); end
	write_waiting();
	for database in pairs(pending) do
		for name in pairs(pending[database]) do insert_pending(database, name); end
	end
	if migrates then
		if counts.moved == 0 then fail(64, "there is nothing to migrate: all data are in that storage"); end
		compare();
	end
	-- An empty directory is replaced.
	if is_again then
		for _, name in ipairs(stores.list(moving)) do remove(moving .. "/" .. name); end
	end
	check(os.rename(place, moving));
	local is_begun = is_again;
	for _, database in pairs(stores.databases) do
		if not database.commit() then
			-- SQLite has kept nothing then. A server that is lost may have kept all.
			if database.driver == "SQLite3" and not is_begun then os.rename(moving, place); end
			database.check(false, "the transaction cannot be committed");
		end
		is_begun = true;
		if database.driver == "SQLite3" then database.set_wal(); end
	end
	for host in pairs(taken) do
		local folder = "/" .. datamanager.path_encode(host);
		if not migrates and (is_again or lfs.attributes(moving .. folder)) then remove(stores.data_dir .. folder); end
		move(moving .. folder, stores.data_dir .. folder);
	end
	remove(moving);
end

local ok, problem = xpcall(function ()
	local manifest = read_archive();
	finish();
	return manifest;
end, function (problem)
	return type(problem) == "table" and problem or debug.traceback(tostring(problem));
end);
if not ok then
	for _, database in pairs(stores.databases) do pcall(database.ask, database.connection.rollback, database.connection); end
	remove(place);
	error(problem, 0);
end

for text, number in pairs(lost) do say("warning", "Left out: %d %s", number, text); end
if migrates then
	say("info", "Migrated: %d records, of them %d accounts; the copy was compared with the original", counts.moved,
		counts.accounts);
	return 0;
end
for id, number in pairs(expired) do
	local host, option = id:match("^(.-)%z(.*)$");
	say("warning", "%d items of %s are older than %s: the server deletes them after its start, unless it gets a longer time "
		.. "before", number, host, option);
end
say("info", "Restored: %d records, of them %d accounts, and %d uploaded files, of Prosody %s at %s", counts.records,
	counts.accounts, counts.files, tostring(problem.prosody), tostring(problem.time));
return 0;
