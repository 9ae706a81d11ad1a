-- Creates accounts, in the server and in `prosodyctl`. This is the body of a function that returns `make_all`.
local config = require "core.configmanager";
local datamanager = require "util.datamanager";
local jid_split = require "util.jid".split;
local storagemanager = require "core.storagemanager";
local usermanager = require "core.usermanager";

-- Whether accounts of a host can have this role. Some providers raise an error for an unknown role.
local function knows_role(role, host)
	local find = usermanager.get_role_by_name;
	local ok, found = pcall(find or error, role, host);
	return ok and found;
end

-- Whether an account exists, and the reason if that is unknown. For providers, an unreadable account does not exist,
-- and they would overwrite it. So this looks at the stored data, and only once, because they may become readable
-- meanwhile.
local function exists(username, host)
	local account, unread = storagemanager.open(host, "accounts"):get(username);
	local _, driver = storagemanager.get_driver(host, "accounts");
	if account == nil and not unread and driver == "internal" then
		local file = io.open((datamanager.getpath(username, host, "accounts")));
		if file then
			file:close();
			unread = "its file is empty";
		end
	end
	if unread then
		return true, "whether it exists cannot be read: " .. tostring(unread);
	end
	return account ~= nil or usermanager.user_exists(username, host);
end

-- Returns whether the account was created, and the reason if it was not, unless it exists already.
local function make(account)
	local username, host = jid_split(account.jid);
	local session = prosody.hosts[host];
	if not session or session.type ~= "local" or config.get(host, "component_module") then
		return false, "there is no virtual host " .. host;
	end
	local is_there, reason = exists(username, host);
	if is_there then
		return false, reason;
	end

	-- Roles exist since 13.0. The default is that of `prosodyctl adduser`.
	local role = account.role;
	if role == "" then
		role = config.get(host, "default_provisioned_role") or "prosody:member";
	end
	local has_role = knows_role(role, host);
	if account.role ~= "" and not has_role then
		return false, "there is no role " .. role;
	end
	-- Set the role before creating the account, so that it never has other permissions, even if the process is killed.
	if has_role then
		local given, why = usermanager.set_user_role(username, host, role);
		if not given and account.role ~= "" then
			return false, "it cannot have the role " .. role .. ": " .. tostring(why);
		end
	end
	local ok, made, why = pcall(usermanager.create_user, username, account.password, host);
	if ok and made then
		return true;
	end
	if has_role then
		pcall(usermanager.set_user_role, username, host, config.get(host, "default_user_role") or "prosody:registered");
	end
	return false, tostring(not ok and made or why);
end

-- Parses accounts, one per line: JID, role and password, separated by tabs.
local function parse(text)
	local accounts = {};
	for jid, role, password in text:gmatch("([^\t\n]+)\t([^\t\n]*)\t([^\t\n]+)\n") do
		accounts[#accounts + 1] = { jid = jid, role = role, password = password };
	end
	return accounts;
end

-- Creates accounts, one after the other, and calls `pause` before each. Returns the JIDs of created and of existing
-- accounts, and a JID and a reason for every failure.
local function make_all(text, pause)
	local made, there, failed = {}, {}, {};
	for _, account in ipairs(parse(text)) do
		pause(account.jid);
		local ok, is_made, reason = pcall(make, account);
		if not ok or reason then
			failed[#failed + 1] = { account.jid, tostring(reason or is_made) };
		else
			table.insert(is_made and made or there, account.jid);
		end
		account.password = nil;
	end
	return made, there, failed;
end

return make_all;
