-- Serves the virtual hosts of one shard: those whose locks it holds in the database that all shards have in common.
--
-- A host goes by its unit: the virtual host that it is, or is below. A unit has a bucket by its name, and a bucket belongs to
-- one of the shards by rendezvous hashing, unless the settings pin the host. No host is active without its locks, which are
-- advisory locks of one session (PostgreSQL's manual, "Advisory Locks"): that of the bucket; or, if hosts of the bucket are
-- pinned, a share of that, and one for a pinned host or one for all others. So shards with different settings exclude each
-- other, too.
--
-- The session may be lost. For `patience` seconds after the last answer, the hosts stay, and calls of the storage wait until
-- the database is back. So nobody else may take what was not released until more time has gone: a table has a row for each
-- lock that is held, and its holder removes it before it releases the lock. A restarted shard need not wait, if a lock on the
-- data directory tells that its predecessor is dead.

local async = require "util.async";
local config = require "core.configmanager";
local hex_digest = require "util.hashes".sha256;
local log = require "util.logger".init("entrypoint");
local modules = require "core.modulemanager";
local monotonic = require "util.time".monotonic;
local new_id = require "util.id".medium;
local open = load_client();
local sleep = require "socket".sleep;
local timer = require "util.timer";

-- The first key of all locks: "pros".
local class = 0x70726f73;
local buckets = 1024;
-- In seconds: between two rounds, and while locks are missing; for an answer; without an answer until hosts are given up;
-- until a lock is taken that was not released.
local interval, quickly, time_limit, patience, grace = 1, 0.25, 5, 20, 26;

-- What the settings say: the `number` of this shard, the first `count`, and digests of `settings`.
local given = config.get("*", "entrypoint_shards");

local holder = ("%d:%s:%s"):format(given.number, shards.directory or "", new_id());
-- Rows of a predecessor that is dead.
local predecessors = shards.directory and ("%d:%s:"):format(given.number, shards.directory);

local connection, last_answer, is_stopping;
local count = given.count;
-- By key, what is known of a lock: `ready_at`, from when on its hosts may be served, and whether the lock `is_ours` by the
-- table.
local held = {};

---- Which host belongs to which shard

local function number_of(text)
	return tonumber(hex_digest(text, true):sub(1, 8), 16);
end

local function bucket_of(unit)
	return number_of(unit) % buckets;
end

local owners = {};
-- The shard of a bucket.
local function owner_of(bucket)
	if owners.count ~= count then owners = { count = count }; end
	if not owners[bucket] then
		local owner, greatest = 0, -1;
		for shard = 0, count - 1 do
			local weight = number_of(("%d %d"):format(bucket, shard));
			if weight > greatest then owner, greatest = shard, weight; end
		end
		owners[bucket] = owner;
	end
	return owners[bucket];
end

local function is_virtual(sections, host)
	local section = rawget(sections, host);
	return section and not rawget(section, "component_module");
end

-- The virtual host that a host is or is below, or else the host itself.
local function unit_of(sections, host)
	local name = host;
	while name do
		if is_virtual(sections, name) then return name; end
		name = name:match("%.(.+)$");
	end
	return host;
end

-- The shards of pinned virtual hosts, and buckets that have some.
local pins, pinned_buckets;

-- The locks of a unit, by key: their buckets, and whether a share is enough.
local function locks_of(unit)
	local bucket = bucket_of(unit);
	if pins[unit] then
		return {
			[bucket] = { bucket = bucket, is_shared = true },
			[2 * buckets + number_of(unit) % 0x40000000] = { bucket = bucket },
		};
	end
	if pinned_buckets[bucket] then
		return {
			[bucket] = { bucket = bucket, is_shared = true },
			[buckets + bucket] = { bucket = bucket },
		};
	end
	return { [bucket] = { bucket = bucket } };
end

-- The units in a configuration, and for each its bucket and its locks.
local sections_of_units, units;
local function find_units()
	local sections = config.getconfig();
	if sections_of_units == sections then return units; end
	sections_of_units, units, pins, pinned_buckets = sections, {}, {}, {};
	for host, section in pairs(sections) do
		pins[host] = rawget(section, "entrypoint_shard");
		if pins[host] then pinned_buckets[bucket_of(host)] = true; end
	end
	for host in pairs(sections) do
		if host ~= "*" then
			local unit = unit_of(sections, host);
			units[unit] = units[unit] or { bucket = bucket_of(unit), locks = locks_of(unit) };
		end
	end
	return units;
end

local function belongs_here(unit)
	local it = find_units()[unit];
	return it and (pins[unit] or owner_of(it.bucket)) == given.number and given.number < count;
end

local wanted, wanted_of, wanted_among;
-- The locks that this shard should hold.
local function wanted_locks()
	local all = find_units();
	if wanted_of == all and wanted_among == count then return wanted; end
	wanted, wanted_of, wanted_among = {}, all, count;
	for unit, it in pairs(all) do
		if belongs_here(unit) then
			for key, lock in pairs(it.locks) do wanted[key] = lock; end
		end
	end
	return wanted;
end

-- Whether a host belongs to this shard.
function shards.has(host)
	return belongs_here(unit_of(config.getconfig(), host));
end

local function is_held(unit)
	if not belongs_here(unit) then return false; end
	for key in pairs(units[unit].locks) do
		if not held[key] or not held[key].is_ours then return false; end
	end
	return true;
end

-- Whether a host may be active here now.
function shards.holds(host)
	return is_held(unit_of(config.getconfig(), host));
end

---- The database

-- Whether nobody else can have taken what was held at the last answer.
local function may_write()
	return last_answer and monotonic() - last_answer < patience;
end

-- Sends a query and waits for its answer: rows, or nil and a reason.
local function ask(sql, ...)
	local wait, done = async.waiter();
	local rows, reason, is_answered;
	local asked = connection;
	if not asked then return nil, "the connection has ended"; end
	asked.query(sql:format(...), function (found, why)
		rows, reason = found, why;
		if not is_answered then
			is_answered = true;
			if found then last_answer = monotonic(); end
			done();
		end
	end);
	timer.add_task(time_limit, function ()
		if not is_answered then asked.close("no answer in " .. time_limit .. " s"); end
	end);
	wait();
	-- What a session holds after an error is not known.
	if not rows then asked.close(reason); end
	return rows, reason;
end

local function quote(text)
	return "'" .. text:gsub("'", "''"):gsub("%z", "") .. "'";
end

-- A list of keys for SQL.
local function list(keys)
	local found = {};
	for key in pairs(keys) do found[#found + 1] = ("%d"):format(key); end
	return #found > 0 and table.concat(found, ",") or "NULL";
end

local tables = [[
	CREATE TABLE IF NOT EXISTS prosody_entrypoint_shards (id integer PRIMARY KEY CHECK (id = 1), count integer NOT NULL);
	CREATE TABLE IF NOT EXISTS prosody_entrypoint_locks
		(key integer PRIMARY KEY, bucket integer NOT NULL, holder text NOT NULL);
	CREATE TABLE IF NOT EXISTS prosody_entrypoint_members
		(number integer, name text, digest text NOT NULL, PRIMARY KEY (number, name));
	INSERT INTO prosody_entrypoint_shards VALUES (1, %d) ON CONFLICT DO NOTHING;
	SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3;
]];

local last_problem;
-- Logs a problem once, until it is another one.
local function complain(level, problem, ...)
	local text = problem and problem:format(...);
	if text ~= last_problem and text then log(level, "%s", text); end
	last_problem = text;
end

-- Opens a session. Returns whether there is one.
local function connect()
	if connection then return true; end
	local found, reason = open(config.get("*", "sql"), function (why)
		connection = nil;
		if not is_stopping then complain("warn", "The session that holds this shard's locks has ended: %s", why); end
	end);
	if not found then
		complain("warn", "The database of the shards is away: %s", reason);
		return false;
	end
	connection = found;
	-- Two servers that create a table at once disturb each other.
	return ask("SELECT pg_advisory_lock(%d, %d)", class, -2000) and ask(tables, given.count)
		and ask("SELECT pg_advisory_unlock(%d, %d)", class, -2000) and true or false;
end

-- The number is one server's. Returns whether it is this one's.
local function lock_number()
	if connection.has_number then return true; end
	local rows = ask("SELECT pg_try_advisory_lock(%d, %d)", class, -1 - given.number);
	if not rows then return false; end
	if rows[1][1] ~= "t" then
		complain("warn", "Another server is shard %d: this one waits until that has ended", given.number);
		return false;
	end
	if not connection then return false; end
	connection.has_number = true;
	return true;
end

-- The settings that differed last.
local differing = "";
local has_warned = false;

-- Compares the settings with those of the other shards, and tells which differ.
local function compare_settings()
	local mine = {};
	for name, digest in pairs(given.settings) do mine[name] = digest; end
	mine[" directory"] = shards.directory;
	local others = ask("SELECT number, name, digest FROM prosody_entrypoint_members WHERE number <> %d AND number < %d",
		given.number, count);
	if not others then return; end
	local theirs, different = {}, {};
	for _, row in ipairs(others) do
		theirs[row[1]] = theirs[row[1]] or {};
		theirs[row[1]][row[2]] = row[3];
	end
	for number, settings in pairs(theirs) do
		for name, digest in pairs(mine) do
			if settings[name] ~= digest then different[name] = number; end
		end
		for name in pairs(settings) do
			if mine[name] == nil then different[name] = number; end
		end
	end
	local names = {};
	for name, number in pairs(different) do
		if name ~= " directory" then
			names[#names + 1] = name;
		elseif not has_warned then
			has_warned = true;
			log("warn", "Shard %s has another data directory: when a host moves, its uploaded files stay behind", number);
		end
	end
	table.sort(names);
	local text = table.concat(names, ", ");
	if text ~= differing and text ~= "" then
		log("warn", "The shards have different settings: %s", text);
	end
	differing = text;
	local values = {};
	for name, digest in pairs(mine) do
		values[#values + 1] = ("(%d, %s, %s)"):format(given.number, quote(name), quote(digest));
	end
	ask("DELETE FROM prosody_entrypoint_members WHERE number = %d%s", given.number,
		#values > 0 and "; INSERT INTO prosody_entrypoint_members VALUES " .. table.concat(values, ", ") or "");
end

---- Locks

-- Gives locks up: their hosts first, then their rows, then the locks.
local function release(keys)
	for key in pairs(keys) do held[key].is_ours = false; end
	shards.move();
	if not ask("DELETE FROM prosody_entrypoint_locks WHERE key IN (%s) AND holder = %s", list(keys), quote(holder)) then
		return false;
	end
	local calls = {};
	for key in pairs(keys) do
		calls[#calls + 1] = ("pg_advisory_unlock%s(%d, %d)"):format(held[key].is_shared and "_shared" or "", class, key);
	end
	if not ask("SELECT %s", table.concat(calls, ", ")) then return false; end
	for key in pairs(keys) do held[key] = nil; end
	return true;
end

-- Tries to get locks of this session. Returns those that it has, or nil.
local function try(locks)
	local keys, calls, got = {}, {}, {};
	for key, lock in pairs(locks) do
		keys[#keys + 1] = key;
		calls[#calls + 1] = ("(%d, pg_try_advisory_lock%s(%d, %d))"):format(key, lock.is_shared and "_shared" or "", class, key);
	end
	if #keys == 0 then return got; end
	local rows = ask("VALUES %s", table.concat(calls, ", "));
	if not rows then return nil; end
	for _, row in ipairs(rows) do
		if row[2] == "t" then got[tonumber(row[1])] = true; end
	end
	return got;
end

-- Takes the locks that are free and should be held. Returns whether all of them are.
local function take(wanted)
	local missing, has_all = {}, true;
	for key, lock in pairs(wanted) do
		if not held[key] then missing[key] = lock; end
	end
	local got = try(missing);
	if not got then return false; end
	for key, lock in pairs(missing) do
		if got[key] then
			held[key] = { bucket = lock.bucket, is_shared = lock.is_shared, ready_at = math.huge };
		else
			has_all = false;
		end
	end
	if next(got) then
		local rows = ask("SELECT key, bucket, holder FROM prosody_entrypoint_locks");
		if not rows then return false; end
		local later = monotonic() + grace;
		local unreleased = 0;
		for mine in pairs(got) do held[mine].ready_at = 0; end
		for _, row in ipairs(rows) do
			local key, bucket, other = tonumber(row[1]), tonumber(row[2]), row[3];
			local is_dead = predecessors and other:sub(1, #predecessors) == predecessors;
			if other ~= holder and not is_dead then
				for mine in pairs(got) do
					if held[mine] and held[mine].bucket == bucket and (mine == key or mine == bucket or key == bucket) then
						if held[mine].ready_at == 0 then unreleased = unreleased + 1; end
						held[mine].ready_at = later;
					end
				end
			end
		end
		if unreleased > 0 then
			log("info", "%d of the locks were not released by their last holder: their hosts are served in %d s",
				unreleased, grace);
		end
	end
	return has_all;
end

-- Makes those locks ours whose time has come, and serves their hosts. Returns whether that is all of them.
local function use(wanted)
	local ready, has_all, now = {}, true, monotonic();
	for key in pairs(wanted) do
		local it = held[key];
		if it and not it.is_ours then
			if it.ready_at <= now then ready[key] = true; else has_all = false; end
		end
	end
	if next(ready) then
		local values, keys = {}, {};
		for key in pairs(ready) do
			if not held[key].is_shared then
				values[#values + 1] = ("(%d, %d, %s)"):format(key, held[key].bucket, quote(holder));
			else
				keys[key] = true;
			end
		end
		local sql = ("DELETE FROM prosody_entrypoint_locks WHERE key IN (%s)"):format(list(keys));
		if #values > 0 then
			sql = sql .. ("; INSERT INTO prosody_entrypoint_locks VALUES %s ON CONFLICT (key) DO UPDATE SET "
				.. "bucket = excluded.bucket, holder = excluded.holder"):format(table.concat(values, ", "));
		end
		if not ask("%s", sql) then return false; end
		for key in pairs(ready) do held[key].is_ours = true; end
		shards.move();
	end
	return has_all;
end

-- After a lost session: keeps the hosts whose locks nobody else has had since. Returns whether that is known.
local function resume()
	local before = {};
	for key, it in pairs(held) do before[key] = it.is_ours and it or nil; end
	-- Others are taken anew.
	held = {};
	for key, it in pairs(before) do held[key] = it; end
	local got = try(before);
	local rows = got and ask("SELECT key, holder FROM prosody_entrypoint_locks WHERE holder <> %s", quote(holder));
	if not rows then return false; end
	local taken = {};
	for _, row in ipairs(rows) do taken[tonumber(row[1])] = true; end
	local lost = false;
	for key, it in pairs(before) do
		if not got[key] or taken[key] and not it.is_shared then
			held[key], lost = nil, true;
			if got[key] then ask("SELECT pg_advisory_unlock%s(%d, %d)", it.is_shared and "_shared" or "", class, key); end
		end
	end
	if lost then
		log("error", "Other servers have taken locks of this shard while its session was lost: it gives up their hosts");
		shards.move();
	end
	return true;
end

-- Without the database for too long, nothing is held.
local function give_up()
	if next(held) and not may_write() then
		complain("error", "The database of the shards has not answered for %d s: no host is served until it does", patience);
		held = {};
		shards.move();
	end
end

local announced;
local function announce()
	local mine, all = 0, 0;
	for unit in pairs(find_units()) do
		all = all + 1;
		if is_held(unit) then mine = mine + 1; end
	end
	local text = ("Shard %d of %d serves %d of %d virtual hosts"):format(given.number, count, mine, all);
	if given.number >= count then
		text = ("Shard %d waits, because there are %d shards: prosody-entrypoint shards --set %d"):format(
			given.number, count, given.number + 1);
	end
	if text ~= announced then log("info", "%s", text); end
	announced = text;
end

-- One round. Returns the time until the next one.
local function round()
	if not connect() or not lock_number() then return quickly; end
	if not connection.is_resumed then
		if not resume() or not connection then return quickly; end
		connection.is_resumed = true;
		compare_settings();
	end
	local rows = ask("SELECT count FROM prosody_entrypoint_shards");
	if not rows then return quickly; end
	count = rows[1] and tonumber(rows[1][1]) or given.count;
	local wanted, unwanted = wanted_locks(), {};
	for key, it in pairs(held) do
		if not wanted[key] or wanted[key].is_shared ~= it.is_shared then unwanted[key] = true; end
	end
	if next(unwanted) and not release(unwanted) then return quickly; end
	local has_all = take(wanted);
	has_all = use(wanted) and has_all;
	if has_all then
		complain();
		announce();
	end
	return has_all and interval or quickly;
end

local runner = async.runner(function ()
	local ok, result = xpcall(round, debug.traceback);
	if not ok then
		log("error", "%s", result);
		if connection then connection.close("an error"); end
	end
	give_up();
	if not is_stopping then timer.add_task(ok and result or interval, shards.next_round); end
end);

function shards.next_round() runner:run(true); end

---- The start and the stop

-- Calls of the storage wait while the database is away, and fail when other shards may have taken the hosts.
local function fence()
	local sql = require "util.sql";
	local methods = getmetatable(sql:create_engine { driver = "PostgreSQL", database = "" }).__index;
	local original = methods.connect;
	function methods:connect()
		if self.conn or self.params.driver ~= "PostgreSQL" then return original(self); end
		local ok, reason = original(self);
		while not ok and may_write() do
			sleep(0.2);
			ok, reason = original(self);
		end
		if ok and last_answer and not may_write() then
			self.conn:close();
			self.conn = nil;
			return nil, "this shard may have lost its hosts";
		end
		return ok, reason;
	end
end

fence();

-- Prosody activates no host by itself. Afterwards its configuration is as it was.
local disabled = {};
for host, section in pairs(config.getconfig()) do
	if host ~= "*" and rawget(section, "enabled") ~= false then
		disabled[section] = true;
		section.enabled = false;
	end
end
-- It would call that an error.
local unmute = function () end;
for _, handler in ipairs(prosody.events.get_handlers("server-starting") or {}) do
	local original, place = shards.upvalue(handler, "log");
	if place and shards.upvalue(handler, "activate") then
		debug.setupvalue(handler, place, function () end);
		unmute = function () debug.setupvalue(handler, place, original); end;
	end
end
prosody.events.add_handler("hosts-activated", function ()
	unmute();
	for section in pairs(disabled) do section.enabled = nil; end
	-- So that the ports are open before the first host is there.
	local enabled = modules.get_modules_for_host("*");
	for name in enabled do
		if name == "c2s" or name == "s2s" then modules.load("*", name); end
	end
end, 1000);

prosody.events.add_handler("server-started", shards.next_round, -2000);

prosody.events.add_handler("server-stopping", function () is_stopping = true; end, 1000);

-- Nothing is written any more, so the next holder need not wait.
prosody.events.add_handler("server-stopped", function ()
	if connection and async.ready() then ask("DELETE FROM prosody_entrypoint_locks WHERE holder = %s", quote(holder)); end
end, -1000);
