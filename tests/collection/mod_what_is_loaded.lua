-- Logs the modules that are loaded on each host, and stops the server.

module:set_global();

local modulemanager = require "core.modulemanager";
local add_task = require "util.timer".add_task;

local function say_and_end()
	local hosts = { "*" };
	for host in pairs(prosody.hosts) do
		table.insert(hosts, host);
	end
	for _, host in ipairs(hosts) do
		local loaded = {};
		for name in pairs(modulemanager.get_modules(host)) do
			table.insert(loaded, name);
		end
		module:log("info", "loaded on %s: %s", host, table.concat(loaded, " "));
	end
	prosody.unlock_globals();
	prosody.shutdown("all is said");
	prosody.lock_globals();
	-- Without a due task, 0.12 sleeps for another second before it exits.
	add_task(0, function () end);
end

-- A task of the main loop runs after everything that modules do at the start.
module:hook("server-started", function ()
	add_task(0, function () prosody.main_thread:run(say_and_end); end);
end);
