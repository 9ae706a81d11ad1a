-- Takes over the roles that Prosody 0.12 has stored, once for each host: 13.0 looks for them in another store, so an
-- administrator would be an ordinary account.
--
-- A store of ours remembers that a host's roles were taken over. Otherwise the next start would make somebody an
-- administrator again who has been demoted since.

local async = require "util.async";
local log = require "util.logger".init("entrypoint");
local storagemanager = require "core.storagemanager";
local usermanager = require "core.usermanager";

-- 0.12 has no primary role.
if not usermanager.set_user_role then return; end

-- The role with this name, if the host has it.
local function find(name, host)
	local ok, role = pcall(usermanager.get_role_by_name, name, host);
	return ok and role or nil;
end

-- Takes over the roles of an account: the one with most rights is its primary role. Returns its name, or the reason why
-- there is none.
local function take_over_account(username, host, stored)
	local found, unknown = {}, {};
	for name, is_set in pairs(stored) do
		local role = is_set and find(name, host);
		if role then
			found[#found + 1] = role;
		elseif is_set then
			unknown[#unknown + 1] = tostring(name);
		end
	end
	if not usermanager.user_exists(username, host) then return nil, "there is no such account"; end
	local roles, unread = storagemanager.open(host, "account_roles"):get(username);
	if roles or unread then return nil, unread or "it has roles of 13.0"; end
	if not found[1] then return nil, "unknown: " .. table.concat(unknown, ", "); end
	table.sort(found, function (a, b) return (a.priority or 0) > (b.priority or 0); end);
	for i, role in ipairs(found) do
		local change = i == 1 and usermanager.set_user_role or usermanager.add_user_secondary_role;
		local ok, reason = change(username, host, role.name);
		if not ok then return nil, tostring(reason); end
	end
	return found[1].name;
end

local function take_over(host)
	if prosody.hosts[host].type ~= "local" then return; end
	local old = storagemanager.open(host, "roles");
	if not old.users then return; end
	local accounts = {};
	-- A database gives its rows one by one, and cannot be written meanwhile.
	for username in old:users() do accounts[#accounts + 1] = username; end
	if not accounts[1] then return; end
	local remembered = storagemanager.open(host, "entrypoint", "map");
	local is_done, unread = remembered:get(nil, "roles_taken_over");
	if is_done then return; end
	-- First of all, because a role too few is better than one too many.
	local ok, reason = not unread and remembered:set(nil, "roles_taken_over", true);
	if not ok then error(unread or reason, 0); end
	for _, username in ipairs(accounts) do
		local stored = old:get(username);
		if stored and next(stored) then
			local role, why = take_over_account(username, host, stored);
			if role then
				log("info", "Taken over from Prosody 0.12: %s@%s has the role %s", username, host, role);
			else
				log("warn", "The roles of %s@%s from Prosody 0.12 are not taken over: %s", username, host, why);
			end
		end
	end
end

-- Some providers ask another server whether an account exists, and wait for its answer. That needs a runner.
local runner = async.runner(function (host)
	local ok, reason = pcall(take_over, host);
	if not ok then log("error", "The roles on %s from Prosody 0.12 are not taken over: %s", host, reason); end
end);

-- After the provider of accounts is there, and before any module.
prosody.events.add_handler("host-activated", function (host) runner:run(host); end, 50);
