
-- Makes the accounts that the settings name, where they do not exist yet. They come in a file, of which the
-- first line says where it is. Only Prosody's user can read it, and it is gone once it was read.

module:set_global();

local async = require "util.async";
local now = require "util.time".now;
local make_all = load_maker();

-- How many seconds of work there are at once: at the start, before anybody is answered, and later beside
-- others' work. A new password takes some milliseconds, on purpose.
local at_first, at_once, pause = 0.2, 0.02, 0.01;

-- How many names stand in one line of the log.
local shown = 5;

-- What is in the file, which is removed. Nothing where there is no such file.
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

-- Names for a line of the log.
local function several(names)
	if #names <= shown then return table.concat(names, ", "); end
	return table.concat(names, ", ", 1, shown) .. " and " .. (#names - shown) .. " more";
end

-- Some providers ask elsewhere and wait for the answer, which is done in a runner.
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

-- Before the first connection is answered, whose providers and stores are all there.
module:hook("server-started", function () runner:run(at_first); end);

-- There may be more after a reload.
module:hook("config-reloaded", function () runner:run(at_once); end);
