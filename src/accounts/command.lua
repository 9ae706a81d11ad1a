
-- A `prosodyctl` command that creates the accounts on its standard input. For each account, it prints a line with
-- `made`, `there` or `failed`, the JID, and the reason.
local function entrypoint_accounts()
	local storagemanager = require "core.storagemanager";
	local usermanager = require "core.usermanager";
	local jid_split = require "util.jid".split;
	local new_events = require "util.events".new;
	local ready = {};
	local made, there, failed = load_maker()(io.read("*a"), function (jid)
		local _, host = jid_split(jid);
		if prosody.hosts[host] and not ready[host] then
			ready[host] = true;
			-- In prosodyctl, all hosts share their events, so one host would get another's provider.
			prosody.hosts[host].events = new_events();
			storagemanager.initialize_host(host);
			usermanager.initialize_host(host);
		end
	end);
	for _, jid in ipairs(made) do io.write("made\t", jid, "\t\n"); end
	for _, jid in ipairs(there) do io.write("there\t", jid, "\t\n"); end
	for _, failure in ipairs(failed) do
		io.write("failed\t", failure[1], "\t", (failure[2]:gsub("%s+", " ")), "\n");
	end
	return 0;
end

-- `prosodyctl` looks here for commands that it does not know, under the names of 13.0 and 0.12.
for _, prefix in ipairs({ "prosody.util", "util" }) do
	package.preload[prefix .. ".prosodyctl.entrypoint_accounts"] = function ()
		return { entrypoint_accounts = entrypoint_accounts };
	end;
end
