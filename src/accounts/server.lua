
-- Creates the accounts from the settings if they do not exist. The accounts are in the file `accounts_path`. Only Prosody's
-- user can read it, and it is removed after reading.

local async = require "util.async";
local log = require "util.logger".init("entrypoint");
local now = require "util.time".now;
local make_all = load_maker();

-- How many seconds to work without a pause: at the start, before any client gets an answer, and later, when the server
-- has other work. Hashing a new password takes some milliseconds, on purpose.
local at_first, at_once, pause = 0.2, 0.02, 0.01;

-- How many names one log line shows.
local shown = 5;

-- Returns the content of the file and removes it. Returns an empty string if there is no file.
local function take()
	local file = io.open(accounts_path);
	if not file then return ""; end
	local text = file:read("*a");
	file:close();
	local removed, reason = os.remove(accounts_path);
	if not removed then
		log("error", "%s: has passwords in it and cannot be removed: %s", accounts_path, reason);
	end
	return text or "";
end

-- Joins names for a log line.
local function several(names)
	if #names <= shown then return table.concat(names, ", "); end
	return table.concat(names, ", ", 1, shown) .. " and " .. (#names - shown) .. " more";
end

-- Accounts of hosts of other shards, which may come here.
local kept = "";

-- Puts aside the accounts of hosts that are not here.
local function of_present_hosts(text)
	local here, elsewhere = {}, {};
	for line, host in text:gmatch("([^\t\n]-([^@\t\n]+)\t[^\n]*\n)") do
		local list = prosody.hosts[host] and here or elsewhere;
		list[#list + 1] = line;
	end
	kept = table.concat(elsewhere);
	return table.concat(here);
end

-- Some providers ask another server and wait for its answer. That needs a runner.
local runner = async.runner(function (limit)
	local since = now();
	local text = take();
	if shards then text = of_present_hosts(kept .. text); end
	local made, there, failed = make_all(text, function ()
		if now() - since > limit then
			async.sleep(pause);
			since, limit = now(), at_once;
		end
	end);
	for _, failure in ipairs(failed) do
		log("error", "The account %s cannot be made: %s", failure[1], failure[2]);
	end
	if #made > 0 then
		log("info", "New accounts: %s", several(made));
	end
	if #there > 0 then
		log("info", "Left as they are, with their passwords, because they exist: %s", several(there));
	end
end);

-- Before the first connection is answered. All providers and stores are loaded by then.
prosody.events.add_handler("server-started", function () runner:run(at_first); end);

-- A reload may bring new accounts, even one that Prosody does by itself.
for _, event in ipairs { "config-reloaded", "entrypoint-applied" } do
	prosody.events.add_handler(event, function () runner:run(at_once); end);
end
