
-- Creates the accounts of the settings, unless they exist. They are in a file, whose path is in the first line. Only
-- Prosody's user can read this file, and it is removed after reading.

module:set_global();

local async = require "util.async";
local now = require "util.time".now;
local make_all = load_maker();

-- Seconds of work without a pause: at the start, before the first client, and later; and seconds of a pause. Hashing a
-- password takes some milliseconds, by design.
local at_first, at_once, pause = 0.2, 0.02, 0.01;

-- The maximum number of names in one log message.
local shown = 5;

-- Reads and removes the file. Returns the empty string if there is no file.
local function take()
	local file = io.open(path);
	if not file then return ""; end
	local text = file:read("*a");
	file:close();
	local removed, reason = os.remove(path);
	if not removed then
		module:log("error", "%s: has passwords in it and cannot be removed: %s", path, reason);
	end
	return text or "";
end

-- Joins names for a log message.
local function several(names)
	if #names <= shown then return table.concat(names, ", "); end
	return table.concat(names, ", ", 1, shown) .. " and " .. (#names - shown) .. " more";
end

-- Some providers wait for other servers, which requires a runner.
local runner = async.runner(function (limit)
	local since = now();
	local made, there, failed = make_all(take(), function ()
		if now() - since > limit then
			async.sleep(pause);
			since, limit = now(), at_once;
		end
	end);
	for _, failure in ipairs(failed) do
		module:log("error", "The account %s cannot be made: %s", failure[1], failure[2]);
	end
	if #made > 0 then
		module:log("info", "New accounts: %s", several(made));
	end
	if #there > 0 then
		module:log("info", "Left as they are, with their passwords, because they exist: %s", several(there));
	end
end);

-- Before the first connection is served, and after all providers and stores are loaded.
module:hook("server-started", function () runner:run(at_first); end);

-- A reload may bring more accounts.
module:hook("config-reloaded", function () runner:run(at_once); end);
