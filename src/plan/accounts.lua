-- Makes the accounts that the settings name, where they do not exist yet.
--
-- They come in a file of which the line above this says where it is: a line each, with the JID, a role and
-- the password between tabs. Only Prosody's user can read it, and it is gone once it was read.

module:set_global();

local async = require "util.async";
local jid_split = require "util.jid".split;
local now = require "util.time".now;
local storagemanager = require "core.storagemanager";
local usermanager = require "core.usermanager";

-- How many seconds of work there are at once: at the start, before anybody is answered, and later beside
-- others' work. A new password takes some milliseconds, on purpose.
local at_first, at_once, pause = 0.2, 0.02, 0.01;

-- How many names stand in one line of the log.
local shown = 5;

-- The accounts of the file, which is removed. None where there is no such file.
local function take()
	local file = io.open(path);
	if not file then return {}; end
	local text = file:read("*a");
	file:close();
	local removed, reason = os.remove(path);
	if not removed then
		module:log("error", "%s: has passwords in it and cannot be removed: %s", path, reason);
	end
	local accounts = {};
	for jid, role, password in (text or ""):gmatch("([^\t\n]+)\t([^\t\n]*)\t([^\t\n]+)\n") do
		accounts[#accounts + 1] = { jid = jid, role = role, password = password };
	end
	return accounts;
end

-- Whether accounts of a host can have a role of that name. Providers refuse one that they do not know by an error.
local function knows_role(role, host)
	local find = usermanager.get_role_by_name;
	local ok, found = pcall(find or error, role, host);
	return ok and found;
end

-- Makes one account. Returns whether it was made; and why not, where it does not simply exist.
local function make(account)
	local username, host = jid_split(account.jid);
	local session = prosody.hosts[host];
	if not session or session.type ~= "local" then
		return false, "there is no virtual host " .. host;
	end
	if usermanager.user_exists(username, host) then return false; end
	-- To providers an account that cannot be read does not exist, and they would write over it.
	local _, unread = storagemanager.open(host, "accounts"):get(username);
	if unread then
		return false, "whether it exists cannot be read: " .. tostring(unread);
	end

	-- Since 13.0. Without a choice it is what `prosodyctl adduser` gives.
	local role = account.role;
	if role == "" then
		role = module:context(host):get_option_string("default_provisioned_role", "prosody:member");
	end
	local has_role = knows_role(role, host);
	if account.role ~= "" and not has_role then
		return false, "there is no role " .. role;
	end
	local made, reason = usermanager.create_user(username, account.password, host);
	if not made then
		return false, tostring(reason);
	end
	if has_role then
		made, reason = usermanager.set_user_role(username, host, role);
		if not made and account.role ~= "" then
			usermanager.delete_user(username, host);
			return false, "it cannot have the role " .. role .. ": " .. tostring(reason);
		end
	end
	return true;
end

-- Names for a line of the log.
local function several(names)
	if #names <= shown then return table.concat(names, ", "); end
	return table.concat(names, ", ", 1, shown) .. " and " .. (#names - shown) .. " more";
end

-- Some providers ask elsewhere and wait for the answer, which is done in a runner.
local runner = async.runner(function (job)
	local made, there = {}, {};
	local since, limit = now(), job.limit;
	for _, account in ipairs(job.accounts) do
		if now() - since > limit then
			async.sleep(pause);
			since, limit = now(), at_once;
		end
		local ok, is_made, reason = pcall(make, account);
		if not ok or reason then
			module:log("error", "The account %s cannot be made: %s", account.jid, tostring(reason or is_made));
		else
			table.insert(is_made and made or there, account.jid);
		end
		account.password = nil;
	end
	if #made > 0 then
		module:log("info", "New accounts: %s", several(made));
	end
	if #there > 0 then
		module:log("info", "Left as they are, with their passwords, because they exist: %s", several(there));
	end
end);

-- Before the first connection is answered, whose providers and stores are all there.
module:hook("server-started", function ()
	runner:run({ accounts = take(), limit = at_first });
end);

-- There may be more after a reload.
module:hook("config-reloaded", function ()
	runner:run({ accounts = take(), limit = at_once });
end);
