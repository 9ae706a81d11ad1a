-- Describes the server to whoever sends something to port 7777, in sorted lines up to `end`: hosts, modules with the values of their
-- variables, what service discovery answers, listeners, addresses, roles. Two servers that behave the same have the same
-- description. To `memory`, it answers how many kB Lua uses.

module:set_global();

local jid_split = require "util.jid".split;
local modulemanager = require "core.modulemanager";
local portmanager = require "core.portmanager";
local server = require "net.server";
local st = require "util.stanza";
local usermanager = require "core.usermanager";

local PORT = 7777;
-- Whose roles are described.
local JIDS = { "admin@a.example", "admin@b.example", "admin@elsewhere.example" };
-- Variables whose values differ from server to server: a time, and a list of what is in a set.
local UNSTABLE = { form_layout = true, start_time = true };

local lines;

-- Adds a line.
local function say(...)
	local words = {};
	for i = 1, select("#", ...) do words[i] = tostring((select(i, ...))); end
	lines[#lines + 1] = table.concat(words, " ");
end

-- A value as text: all of a table without functions, nothing of what differs from run to run.
local function text(value, depth)
	local kind = type(value);
	if kind == "string" then return ("%q"):format(value); end
	if kind == "number" or kind == "boolean" then return tostring(value); end
	if kind ~= "table" or depth > 3 then return nil; end
	-- A set of util.set's keeps its members there.
	value = rawget(value, "_items") or value;
	local parts = {};
	for key, member in next, value do
		local name, content = text(key, depth + 1), text(member, depth + 1);
		if not name or not content then return nil; end
		parts[#parts + 1] = name .. "=" .. content;
	end
	if #parts > 200 then return nil; end
	table.sort(parts);
	return "{" .. table.concat(parts, ",") .. "}";
end

-- An element as text, whatever the order of its attributes.
local function element(tag)
	local parts = {};
	for name, value in pairs(tag.attr) do parts[#parts + 1] = name .. "=" .. value; end
	table.sort(parts);
	for _, child in ipairs(tag) do parts[#parts + 1] = type(child) == "string" and child or element(child); end
	return tag.name .. "(" .. table.concat(parts, " ") .. ")";
end

-- The variables of a module's functions, by name a table of values.
local function variables(source, f, seen, found)
	if seen[f] then return; end
	seen[f] = true;
	if debug.getinfo(f, "S").source ~= source then return; end
	for i = 1, 255 do
		local name, value = debug.getupvalue(f, i);
		if not name then return; end
		if type(value) == "function" then
			variables(source, value, seen, found);
		elseif not UNSTABLE[name] and name ~= "_ENV" then
			local content = text(value, 1);
			if content then
				found[name] = found[name] or {};
				found[name][content] = true;
			end
		end
	end
end

local function sorted(keys)
	local list = {};
	for key in pairs(keys) do list[#list + 1] = tostring(key); end
	table.sort(list);
	return list;
end

local function describe_module(host, name, environment)
	local self = environment.module;
	say(host, "module", name);
	for kind, items in pairs(self.items or {}) do say(host, "items of", name, kind, #items); end
	local found, seen = {}, {};
	for _, events in pairs(self.event_handlers.data) do
		for event, handlers in pairs(events) do
			for handler in pairs(handlers) do
				local source = debug.getinfo(handler, "S").source;
				if not source:find("/core/", 1, true) then variables(source, handler, seen, found); end
			end
			say(host, "handler of", name, event);
		end
	end
	for variable, values in pairs(found) do
		say(host, "variable of", name, variable, table.concat(sorted(values), " | "));
	end
end

-- What service discovery answers to a stranger.
local function describe_disco(host, query)
	local xmlns = "http://jabber.org/protocol/disco#" .. query;
	local answer;
	local origin = {
		type = "s2sin", from_host = "elsewhere.example", to_host = host, hosts = {}, log = module._log,
		send = function (stanza) answer = stanza; return true; end,
	};
	local from = "admin@elsewhere.example/x";
	prosody.core_post_stanza(origin, st.iq { type = "get", from = from, to = host, id = "x" }:query(xmlns));
	if not answer then return say(host, query, "no answer"); end
	for child in (answer:get_child("query", xmlns) or answer):childtags() do say(host, query, element(child)); end
end

local function describe_host(host, session)
	say(host, "type", session.type, session.type == "component" and session.component_module or "");
	say(host, "users", session.users and session.users.name or "none");
	describe_disco(host, "info");
	describe_disco(host, "items");
	for event, handlers in pairs(session.events._event_map) do
		local count = 0;
		for _ in pairs(handlers) do count = count + 1; end
		say(host, "event", event, count);
	end
	for _, jid in ipairs(JIDS) do
		local role;
		if usermanager.get_jid_role then
			local _, jid_host = jid_split(jid);
			role = prosody.hosts[jid_host] and usermanager.get_jid_role(jid, host);
			role = role and role.name or "none";
		else
			role = usermanager.is_admin(jid, host);
		end
		say(host, "role", jid, role);
	end
	for _, name in ipairs { "prosody:guest", "prosody:registered", "prosody:member", "prosody:admin", "prosody:operator" } do
		local role = usermanager.get_role_by_name and usermanager.get_role_by_name(name, host);
		if role then
			for permission, allowed in role:policies() do say(host, "permission", name, permission, allowed); end
		end
	end
end

local function describe_listening(path)
	local file = io.open(path);
	for line in file and file:lines() or function () end do
		local address, state = line:match("^%s*%d+: (%S+) %S+ (%x%x)");
		if state == "0A" then say("listening", path, address); end
	end
end

local function describe()
	lines = {};
	for host, session in pairs(prosody.hosts) do describe_host(host, session); end
	for _, host in ipairs(sorted(prosody.hosts)) do
		for name, environment in pairs(modulemanager.get_modules(host)) do describe_module(host, name, environment); end
	end
	for name, environment in pairs(modulemanager.get_modules("*")) do describe_module("*", name, environment); end
	for event, handlers in pairs(require "net.http.server"._events._event_map) do
		-- Hosts that share a name share its redirections, which have this priority.
		for _, priority in pairs(handlers) do
			if priority ~= -1 then say("http", event); end
		end
	end
	for event, handlers in pairs(prosody.events._event_map) do
		for _ in pairs(handlers) do say("event", event); end
	end
	for name, interface, port, _, active in portmanager.get_active_services():iter(nil, nil, nil, nil) do
		say("service", name, interface, port);
		-- 13.0 does not tell them.
		for host in pairs(active.tls_cfg and active.server.hosts or {}) do say("certificate", interface, port, host); end
	end
	describe_listening("/proc/net/tcp");
	describe_listening("/proc/net/tcp6");
	table.sort(lines);
	return table.concat(lines, "\n") .. "\nend\n";
end

local listener = {};

function listener.onincoming(connection, request)
	if request == "memory" then
		collectgarbage();
		collectgarbage();
		return connection:write(("%.0f\nend\n"):format(collectgarbage("count")));
	end
	local ok, answer = xpcall(describe, debug.traceback);
	connection:write(ok and answer or answer .. "\nend\n");
end

function listener.ondisconnect() end

local function listen()
	assert(server.addserver("*", PORT, listener, "*a"));
end

module:hook("server-started", listen, -2000);
