-- Brings a running server to its newest configuration without a restart.
--
-- The main file runs this before any module is loaded, so that it sees which options modules read. Clients of its
-- socket send lines:
--
-- `load PATH`                   parses a configuration. Answer: `loaded`, or `refused` and a reason.
-- `apply NUMBER LAST DIGEST [renewed NAME,…] [modules NAME,…]`
--                               applies it. Answer: a line for each thing that was done, has failed or needs a restart
--                               (see `note`), and `end NUMBER`. DIGEST is that of all certificates, LAST that of the ones
--                               before, since which those of the named hosts have been renewed, and the files of the
--                               named modules have changed.
-- `compare NUMBER PATH`         parses a configuration and forgets it. Answer: that of `apply`, which changes nothing
--                               here, or `refused` and a reason.
-- `status NUMBER`               Answer: what is not as it is configured, as the last `apply` or the start has left it;
--                               `host` and the name of each host that is not loaded; `port` and each open port;
--                               `stopping`; `was-ready`.
-- `ready NUMBER`                From now on the answer to `status` has `was-ready`.
--
-- A process manager hears of the start, each reload and the stop (sd_notify(3)).
--
-- What is used of Prosody's internals is looked for first. If it is missing, as in another version, changes of that kind
-- need a restart.

local async = require "util.async";
local certmanager = require "core.certmanager";
local config = require "core.configmanager";
local hostmanager = require "core.hostmanager";
local moduleapi = require "core.moduleapi";
local modules = require "core.modulemanager";
local monotonic = require "util.time".monotonic;
local now = require "util.time".now;
local portmanager = require "core.portmanager";
local prep = require "util.jid".prep;
local server = require "net.server";
local sha1 = require "util.hashes".sha1;
local st = require "util.stanza";
local log = require "util.logger".init("entrypoint");
local hosts = prosody.hosts;
local pack, unpack = table.pack or function (...) return { n = select("#", ...), ... }; end, table.unpack or unpack;

-- What changes of each kind use of Prosody's internals.
local uses = {
	[""] = {
		[config] = { "get", "getconfig", "load" },
		[modules] = { "get_module", "get_modules", "get_modules_for_host", "is_loaded", "module_has_method" },
	},
	certificates = { [certmanager] = { "reload_ssl_config" } },
	hosts = { [hostmanager] = { "activate", "deactivate", "get_children" }, [modules] = { "load" } },
	modules = { [moduleapi] = { "hook_object_event" }, [modules] = { "load", "unload" } },
	options = { [moduleapi] = { "get_option" }, [modules] = { "load", "reload" } },
	ports = { [portmanager] = { "activate", "close", "get_active_services", "get_registered_services", "get_service_at" } },
};

-- By kind, a function that Prosody does not have. Changes of this kind need a restart.
local lacking = {};
for kind, libraries in pairs(uses) do
	for library, functions in pairs(libraries) do
		for _, name in ipairs(functions) do
			if type(library[name]) ~= "function" then lacking[kind] = name; end
		end
	end
end
if lacking[""] then error("Prosody has no function " .. lacking[""], 0); end
for kind, name in pairs(lacking) do
	log("warn", "Changes of %s need a restart: Prosody has no function %s", kind, name);
end

-- How many seconds to work without a pause for everything else.
local turn, pause_length = 0.05, 0.005;

local function keys(list)
	local found = {};
	for _, key in ipairs(list) do found[key] = true; end
	return found;
end

-- Modules that are not reloaded: what they hold would be lost, or nothing would look for the new instance.
local never_reloaded = keys { "authz_internal", "component" };

-- Options that locate data. The entrypoint refuses to change them.
local places = keys { "data_path", "default_storage", "sql", "storage" };

-- Options that Prosody reads once, at its start.
local read_at_start = keys {
	"authorization", "client_https_ssl", "daemonize", "error_library", "gc", "installer_plugin_path", "network_backend",
	"network_default_read_size", "pidfile", "run_as_root", "statistics", "statistics_config", "statistics_interval",
	"storage_async_check", "umask",
};

-- Options with a handler of the event `config-reloaded` in Prosody itself, besides `*_ssl` and `*_certificate`.
local taken_up = keys {
	"certificate", "certificates", "debug", "log", "network_settings", "ssl", "ssl_compression", "tls_profile", "unbound",
	"use_dane",
};

-- Whether a handler of `config-reloaded` takes up an option.
local function is_taken_up(name)
	return taken_up[name] or name:match("_ssl$") or name:match("_certificate$");
end

-- Those that are not about TLS.
local without_tls = keys { "debug", "log", "network_settings", "unbound" };

---- Small things

-- With `any_functions`, each function equals each other.
local function equal(a, b, any_functions)
	if a == b or any_functions and type(a) == "function" and type(b) == "function" then return true; end
	if type(a) ~= "table" or type(b) ~= "table" then return false; end
	for key, value in pairs(a) do
		if not equal(value, b[key], any_functions) then return false; end
	end
	for key in pairs(b) do
		if a[key] == nil then return false; end
	end
	return true;
end

-- The keys whose values differ, as a table of keys.
local function differences(a, b)
	local keys = {};
	if a == b then return keys; end
	for key, value in pairs(a) do
		if not equal(value, rawget(b, key)) then keys[key] = true; end
	end
	for key in pairs(b) do
		if rawget(a, key) == nil then keys[key] = true; end
	end
	return keys;
end

local function sorted(keys)
	local list = {};
	for key in pairs(keys) do list[#list + 1] = key; end
	table.sort(list);
	return list;
end

-- A variable of a function's, from outside, and its number.
local function upvalue(f, name)
	for i = 1, type(f) == "function" and 255 or 0 do
		local found, value = debug.getupvalue(f, i);
		if found == name then return value, i; end
		if not found then return nil; end
	end
end

-- Calls `f` and afterwards `restore`, whatever happens.
local function finally(restore, f, ...)
	local result = pack(pcall(f, ...));
	restore();
	if not result[1] then error(result[2], 0); end
	return unpack(result, 2, result.n);
end

-- An option of one configuration. The sections of an old one fall back to the newest global section by themselves, so
-- they are never asked plainly.
local function option(sections, host, name)
	local section = rawget(sections, host);
	local value = section and rawget(section, name);
	if value == nil then value = rawget(sections["*"], name); end
	return value;
end

-- Calls `f` while `look(host, name)` answers for the configuration.
local function with_options(look, f, ...)
	local get = config.get;
	config.get = look;
	return finally(function () config.get = get; end, f, ...);
end

-- Calls `f` with another configuration.
local function with_configuration(sections, f, ...)
	return with_options(function (host, name) return option(sections, host, name); end, f, ...);
end

local since = 0;
-- Whether the work is only noted, and not done.
local is_trial = false;

-- Lets everything else go on.
local function pause()
	if now() - since > turn then
		async.sleep(pause_length);
		since = now();
	end
end

---- Which module reads which option while it is loaded

-- By module; `*` before the name of a shared module's global half.
local read_at_load = {};
-- Options of the global section that modules of hosts read by `module:context("*")`.
local read_globally = {};
-- Options that a handler of `config-reloaded` reads again.
local read_again = {};
-- Above zero while a module is being loaded: at the start of the server, all the time.
local loading = 1;
local is_refreshing = false;

local function record(map, name, option_name)
	local options = map[name];
	if not options then
		options = {};
		map[name] = options;
	end
	options[option_name] = true;
end

-- By default it is another one at each load of the module, which would refuse the slots of before.
local upload_secret = require "util.id".long();

local get_option = moduleapi.get_option;
function moduleapi:get_option(name, default)
	if name == "http_file_share_secret" then default = upload_secret; end
	local environment = rawget(self, "environment") or self.environment;
	local owner = environment and environment.module or self;
	local key = owner.host == "*" and "*" .. owner.name or owner.name;
	if is_refreshing then
		record(read_again, key, name);
	elseif loading > 0 then
		record(self.host == "*" and owner.host ~= "*" and read_globally or read_at_load, key, name);
	end
	return get_option(self, name, default);
end

-- By host and name, the last instance of a module that hooked an event while it was loaded.
local instances = {};

local hook_object_event = moduleapi.hook_object_event;
function moduleapi:hook_object_event(...)
	local environment = rawget(self, "environment") or self.environment;
	local owner = environment and environment.module;
	if loading > 0 and owner then
		instances[owner.host] = instances[owner.host] or {};
		instances[owner.host][owner.name] = owner;
	end
	return hook_object_event(self, ...);
end

-- Removes what is left of a module that failed while it was loaded: Prosody leaves what it has hooked.
local function clear(host, name)
	local instance = instances[host] and instances[host][name];
	local loaded = modules.get_modules(host);
	if instance and loaded and not loaded[name] then
		loaded[name] = instance.environment;
		modules.unload(host, name);
	end
end

-- Replaces functions that load modules by ones that count.
for _, place in ipairs { { modules, "load" }, { modules, "reload" }, { hostmanager, "activate" } } do
	local owner, name = place[1], place[2];
	local original = owner[name];
	owner[name] = original and function (...)
		loading = loading + 1;
		return finally(function () loading = loading - 1; end, original, ...);
	end;
end

---- Which module gives which permission by default

-- By host and module, a list of roles and permissions. Prosody keeps those of a module that is unloaded, and those that
-- it does not give any more after a reload.
local permissions = {};

local function record_permission(host, module_name, role_name, permission)
	local role = hosts[host].authz.get_role_by_name(role_name);
	local name = permission:gsub("^:", module_name .. ":");
	-- Where the configuration has a policy for it, another one is refused.
	if role:set_permission(name, {}) then
		role:set_permission(name, nil, true);
		permissions[host] = permissions[host] or {};
		permissions[host][module_name] = permissions[host][module_name] or {};
		table.insert(permissions[host][module_name], { role, name });
	end
end

local default_permission = moduleapi.default_permission;
if default_permission then
	function moduleapi:default_permission(role_name, permission)
		-- Global modules and unknown roles have none.
		pcall(record_permission, self.host, self.name, role_name, permission);
		return default_permission(self, role_name, permission);
	end
end

for _, action in ipairs { "reload", "unload" } do
	local original = modules[action];
	modules[action] = function (host, name)
		local given, environment = permissions[host] and permissions[host][name], modules.get_module(host, name);
		if not given then return original(host, name); end
		permissions[host][name] = nil;
		for _, it in ipairs(given) do it[1]:set_permission(it[2], nil, true); end
		return finally(function ()
			if modules.get_module(host, name) ~= environment then return; end
			permissions[host][name] = given;
			for _, it in ipairs(given) do it[1]:set_permission(it[2], true); end
		end, original, host, name);
	end;
end

---- TLS contexts of hosts

-- A TLS port has a context for each host, with its certificate. portmanager makes those of all hosts in one go when a
-- module opens a port and after `config-reloaded`; with many hosts, nobody is answered for seconds.

-- Makes the contexts of a host for the TLS ports of a service, or of all services.
local add_sni_host;
-- The services whose ports lack contexts, or `true` for all. Only while `with_contexts` calls a function.
local put_off;

for _, handler in ipairs(prosody.events.get_handlers("item-added/net-provider") or {}) do
	local f, number = upvalue(handler, "add_sni_host");
	if f then
		add_sni_host = f;
		debug.setupvalue(handler, number, function (host, name)
			if not put_off then return f(host, name); end
			put_off[name or true] = true;
		end);
	end
end

-- The contexts of an open port by host, or nil.
local function contexts_of(port)
	local own = port.tls_cfg and port.server.sslctx and port.server:sslctx();
	-- Those of 0.12 are in the server itself.
	return own and own._sni_contexts or port.tls_cfg and port.server.hosts;
end

-- Calls `f`, which may open TLS ports of services, and gives these ports the contexts of all hosts: those that another
-- port of the service had before, or new ones, in turns. With `keep`, contexts of before are never made anew: the caller
-- does so.
local function with_contexts(keep, f, ...)
	if not add_sni_host or lacking.ports or put_off then return f(...); end
	local open_ports, before = portmanager.get_active_services(), {};
	for name, _, _, _, port in open_ports:iter(nil, nil, nil, nil) do
		before[name] = before[name] or {};
		table.insert(before[name], { configuration = port.tls_cfg, contexts = contexts_of(port) });
	end
	put_off = {};
	local result = pack(pcall(f, ...));
	local lack, incomplete = put_off, {};
	put_off = nil;
	for name, _, _, _, port in open_ports:iter(nil, nil, nil, nil) do
		local contexts = (lack[name] or lack[true]) and contexts_of(port);
		local is_complete = not contexts;
		for _, other in ipairs(contexts and before[name] or {}) do
			if other.contexts and (keep or equal(other.configuration, port.tls_cfg, true)) then
				for host, context in pairs(other.contexts) do contexts[host] = contexts[host] or context; end
				is_complete = true;
				break;
			end
		end
		if not is_complete then incomplete[name] = true; end
	end
	for name in pairs(incomplete) do
		for _, host in ipairs(sorted(hosts)) do
			add_sni_host(host, name);
			pause();
		end
	end
	if not result[1] then error(result[2], 0); end
	return unpack(result, 2, result.n);
end

---- The report

-- Takes each line.
local report;
-- The lines of the last run, or of the start, about what is not as it is configured.
local problems = {};

-- `kind` is `done`, `failed` or `restart`, `action` a word for what, `name` of what, on which `host` (or `*`).
local function note(kind, action, name, host, detail)
	local line = table.concat({ kind, action, name or "", host or "", detail or "" }, "\t"):gsub("[\r\n]+", " ");
	if kind ~= "done" and not is_trial then problems[#problems + 1] = line; end
	report(line);
	return kind == "done";
end

-- Calls a function of Prosody's that answers with a false value and a reason where it fails.
local function attempt(action, name, host, f, ...)
	if is_trial then return note("done", action, name, host); end
	local ok, result, reason = xpcall(with_contexts, debug.traceback, false, f, ...);
	if ok and result then return note("done", action, name, host); end
	reason = tostring(ok and reason or result):match("^[^\n]*");
	return note("failed", action, name, host, reason);
end

-- Options that need a restart: the host, the name, and the value that is in force.
local waiting = {};

local function wait_for_restart(old, host, name)
	local id = host .. "\t" .. name;
	waiting[id] = waiting[id] or { host = host, name = name, value = option(old, host, name) };
end

-- Notes them, unless they are again what they were.
local function note_waiting(new)
	for id, it in pairs(waiting) do
		if not rawget(new, it.host) or equal(it.value, option(new, it.host, it.name)) then
			waiting[id] = nil;
		else
			note("restart", "option", it.name, it.host);
		end
	end
end

---- The process manager

local notify_socket = prosody.notify_socket;
local is_reloading = false;

-- One that does not read its socket holds up nobody.
local function notify(message)
	if notify_socket then notify_socket:send(message); end
end

local function notify_reloading()
	if is_reloading then return; end
	is_reloading = true;
	notify(("RELOADING=1\nMONOTONIC_USEC=%d"):format(math.floor(monotonic() * 1000000)));
end

local function notify_ready()
	is_reloading = false;
	notify("READY=1");
end

---- What is wanted

local function provider(sections, host)
	local name = option(sections, host, "anonymous_login") and "anonymous" or option(sections, host, "authentication");
	return "auth_" .. (name or "internal_hashed");
end

-- The modules that a host has in a configuration, as a table of names.
local function wanted_modules(sections, host)
	local names, component = with_configuration(sections, modules.get_modules_for_host, host);
	local wanted = { [component or provider(sections, host)] = true };
	for name in names do wanted[name] = true; end
	return wanted;
end

-- Whether a host has a module, of its own or a global one.
local function has_module(host, name)
	if modules.is_loaded(host, name) then return true; end
	local global = modules.get_module("*", name);
	return global and not modules.module_has_method(global, "add_host");
end

-- The module of a served component, an empty string for a virtual host, nil for none.
local function served_as(sections, host)
	local section = rawget(sections, host);
	if not section or rawget(section, "enabled") == false then return nil; end
	return rawget(section, "component_module") or "";
end

-- Whether a host may be active here, and is not another shard's.
local function is_held(host)
	return not shards or shards.holds(host);
end

-- Modules that a trial would have unloaded, by host and name.
local unloaded = {};

local function unload(host, name)
	if is_trial then unloaded[host .. " " .. name] = true; end
	return attempt("unload", name, host, modules.unload, host, name);
end

-- A loaded module that depends on another.
local function dependent(host, name)
	for other, environment in pairs(modules.get_modules(host) or {}) do
		local needs = environment.module.dependencies;
		if other ~= name and needs and needs[name] and not unloaded[host .. " " .. other] then return other; end
	end
end

-- How many modules are below one.
local function depth(host, name, seen)
	if seen[name] then return 0; end
	seen[name] = true;
	local environment, most = modules.get_module(host, name), 0;
	for other in pairs(environment and environment.module.dependencies or {}) do
		most = math.max(most, 1 + depth(host, other, seen));
	end
	return most;
end

-- Sorts names of modules of a host, those first that need others.
local function by_depth(host, names)
	local depths = {};
	for _, name in ipairs(names) do depths[name] = depth(host, name, {}); end
	table.sort(names, function (a, b) return depths[a] > depths[b] or depths[a] == depths[b] and a < b; end);
	return names;
end

---- Ports

local has_ipv6 = require "socket".tcp6 ~= nil;

-- The interfaces that services have by default in the present configuration, and those that private services have.
local function default_interfaces()
	local every, loopback = {}, {};
	if config.get("*", "use_ipv4") ~= false then every[1], loopback[1] = "*", "127.0.0.1"; end
	if has_ipv6 and config.get("*", "use_ipv6") ~= false then
		every[#every + 1], loopback[#loopback + 1] = "::", "::1";
	end
	return every, loopback;
end

-- Changes the lists of these in place, which portmanager makes once.
local function change_default_interfaces(old, name)
	local places = {
		upvalue(portmanager.activate, "default_interfaces") or false,
		upvalue(portmanager.activate, "default_local_interfaces") or false,
	};
	if not places[1] or not places[2] then return wait_for_restart(old, "*", name); end
	for number, interfaces in ipairs { default_interfaces() } do
		for i = 1, is_trial and 0 or 2 do places[number][i] = interfaces[i]; end
	end
end

-- The addresses of a service in the present configuration, as portmanager finds them, and the prefix of its options.
local function addresses(name, service)
	local prefix = (service.config_prefix or name) .. "_";
	if prefix == "_" then prefix = ""; end
	local function get(...)
		for _, option_name in ipairs { ... } do
			local value = config.get("*", option_name);
			if value then return value; end
		end
	end
	local every, loopback = default_interfaces();
	local interfaces = get(prefix .. "interfaces", prefix .. "interface")
		or service.private and (get("local_interfaces") or loopback)
		or get("interfaces", "interface") or service.listener.default_interface or every;
	local ports = get(prefix .. "ports")
		or service.default_ports or { service.default_port or service.listener.default_port };
	local found = {};
	for _, interface in ipairs(type(interfaces) == "table" and interfaces or { interfaces }) do
		for _, port in ipairs(type(ports) == "table" and ports or { ports }) do
			if tonumber(port) then found[interface .. " " .. port] = { interface = interface, port = tonumber(port) }; end
		end
	end
	return found, prefix;
end

local function is_open(name, address)
	local service = portmanager.get_service_at(address.interface, address.port);
	return service and service.name == name;
end

-- Opens one address. portmanager opens all of a service, with an error for each that is open, so it is shown just one.
local function open(name, address, prefix)
	local get = config.get;
	with_options(function (host, option_name)
		if option_name == prefix .. "interfaces" then return { address.interface }; end
		if option_name == prefix .. "ports" then return { address.port }; end
		return get(host, option_name);
	end, portmanager.activate, name);
	if put_off then put_off[name] = true; end
	return is_open(name, address);
end

-- Presents the certificate of the name that a host has at a service, if that option has changed.
local function change_names(old, host, changed)
	for name, services in pairs(portmanager.get_registered_services()) do
		local option_name = changed[name .. "_host"] and name .. "_host" or name == "https" and "http_host";
		if services[1] and services[1].encryption == "ssl" and changed[option_name] then
			if not add_sni_host then
				wait_for_restart(old, host, option_name);
			elseif not is_trial then
				add_sni_host(host, name);
			end
		end
	end
end

-- Addresses that could not be opened at a reload, by service and address.
local closed = {};

-- Opens addresses. Returns those that failed.
local function open_all(opening)
	local failed = {};
	for _, it in ipairs(opening) do
		local name, address, prefix, id = unpack(it);
		local ok, is_opened = true, is_trial;
		if not is_trial then ok, is_opened = pcall(with_contexts, false, open, name, address, prefix); end
		if ok and is_opened then note("done", "open", id, "*"); else failed[#failed + 1] = it; end
	end
	return failed;
end

-- Closes and opens ports of the present services. Returns the addresses that could not be opened.
local function change_ports(old, new)
	local opening = {};
	for name, services in pairs(portmanager.get_registered_services()) do
		local service = services[1];
		if service then
			local before = with_configuration(old, addresses, name, service);
			local after, prefix = with_configuration(new, addresses, name, service);
			for _, text in ipairs(sorted(before)) do
				local address = before[text];
				if not after[text] and is_open(name, address) then
					attempt("close", name .. " " .. text, "*", portmanager.close, address.interface, address.port);
				end
			end
			for _, text in ipairs(sorted(after)) do
				local id = name .. " " .. text;
				if (not before[text] or closed[id]) and service.encryption == "ssl" and not add_sni_host then
					wait_for_restart(old, "*", prefix .. "ports");
				elseif not before[text] or closed[id] then
					opening[#opening + 1] = { name, after[text], prefix, id, service };
				end
			end
		end
	end
	closed = {};
	-- Afterwards, because one service may get the port of another.
	return open_all(opening);
end

-- Tries again to open addresses, of services that are still there.
local function retry_ports(failed)
	local services, opening = portmanager.get_registered_services(), {};
	for _, it in ipairs(failed) do
		local present = services[it[1]] or {};
		if present[1] == it[5] then opening[#opening + 1] = it; end
	end
	for _, it in ipairs(open_all(opening)) do
		closed[it[4]] = true;
		note("failed", "open", it[4], "*", "see Prosody's log");
	end
end

---- Paths of modules

local plugin_dirs = upvalue((getmetatable(modules.loader) or { __index = {} }).__index.load_file, "plugin_dir");

-- Changes the list in place, which all loaders of modules share.
local function change_plugin_paths()
	local wanted = {};
	if prosody.paths.installer then wanted[1] = prosody.paths.installer .. "/"; end
	for _, path in ipairs(config.get("*", "plugin_paths") or {}) do
		wanted[#wanted + 1] = (path .. "/"):gsub("//+", "/");
	end
	wanted[#wanted + 1] = prosody.paths.source .. "/modules/";
	for i = 1, is_trial and 0 or math.max(#plugin_dirs, #wanted) do plugin_dirs[i] = wanted[i]; end
	note("done", "option", "plugin_paths", "*");
end

---- Hosts

-- The sections that were applied last, by host. A run goes from there to the newest configuration.
local applied = {};
-- Hosts where something is not as it is configured. They are looked at again at each run.
local unfinished = {};

-- Loads the modules that a host should have and does not.
local function load_missing(host, wanted)
	for _, name in ipairs(sorted(wanted)) do
		if not has_module(host, name) then
			if not attempt("load", name, host, modules.load, host, name) then
				unfinished[host] = true;
				clear(host, name);
			end
			pause();
		end
	end
end

local function count_sessions(host)
	local count = 0;
	for _, user in pairs(hosts[host].sessions or {}) do
		for _ in pairs(user.sessions) do count = count + 1; end
	end
	return count;
end

local function remove_host(host)
	local sessions = count_sessions(host);
	local component, muc = modules.get_module(host, "component"), modules.get_module(host, "muc");
	local connection = component and component.session;
	if connection then sessions = sessions + 1; end
	if is_trial then return note("done", "remove", host, host, tostring(sessions)); end
	-- It would stay open and hear nothing.
	if connection then connection:close { condition = "host-gone" }; end
	-- mod_muc would save the rooms with their occupants, and tell nobody. 332: the service goes down (XEP-0045).
	for room in muc and muc.live_rooms and muc.live_rooms() or function () end do
		local x = st.stanza("x", { xmlns = "http://jabber.org/protocol/muc#user" }):tag("status", { code = "332" }):up();
		pcall(room.clear, room, x);
	end
	local reason = { condition = "host-gone", text = "This host is not served any more" };
	local ok, why = hostmanager.deactivate(host, reason);
	instances[host], permissions[host] = nil, nil;
	if not ok then return note("failed", "remove", host, host, why); end
	return note("done", "remove", host, host, tostring(sessions));
end

-- Activates hosts, parents first. Returns them as a table of names.
local function add_hosts(added, new)
	table.sort(added, function (a, b) return #a < #b or #a == #b and a < b; end);
	local fresh = {};
	for _, host in ipairs(added) do
		fresh[host] = true;
		local is_added = attempt("add", host, host, hostmanager.activate, host, new[host]);
		pause();
		if is_added and not is_trial then load_missing(host, wanted_modules(new, host)); end
		pause();
	end
	return fresh;
end

-- Adds to `lost` the modules of removed hosts, and what they need.
local function change_hosts(old, new, lost)
	local gone, added = {}, {};
	if lacking.hosts then
		for host in pairs(hosts) do gone[host] = not served_as(new, host) or nil; end
		for host in pairs(new) do
			if host ~= "*" and served_as(new, host) and not rawget(hosts, host) then gone[host] = true; end
		end
		for _, host in ipairs(sorted(gone)) do note("restart", "host", host, "*"); end
		return {}, {};
	end
	for host in pairs(old) do
		local is_there = host ~= "*" and rawget(hosts, host);
		if is_there and (served_as(new, host) ~= served_as(old, host) or not is_held(host)) then gone[host] = true; end
	end
	for _, host in ipairs(sorted(gone)) do
		-- Global ones, too.
		for name in pairs(wanted_modules(old, host)) do lost[name] = true; end
		for name, environment in pairs(modules.get_modules(host)) do
			lost[name] = true;
			for need in pairs(environment.module.dependencies or {}) do lost[need] = true; end
		end
		remove_host(host);
		pause();
	end
	for host in pairs(new) do
		local is_there = rawget(hosts, host) and not (is_trial and gone[host]);
		if host ~= "*" and served_as(new, host) and not is_there and is_held(host) then added[#added + 1] = host; end
	end
	return gone, add_hosts(added, new);
end

-- Activates and deactivates hosts whose locks have come or gone.
local function move()
	for _, host in ipairs(sorted(hosts)) do
		if not is_held(host) then
			remove_host(host);
			pause();
		end
	end
	local added = {};
	for host in pairs(applied) do
		if host ~= "*" and served_as(applied, host) and not rawget(hosts, host) and is_held(host) then
			added[#added + 1] = host;
		end
	end
	add_hosts(added, applied);
	if added[1] then prosody.events.fire_event("entrypoint-applied"); end
end

---- Modules

-- Whether a host must not have a module, even if another one needs it.
local function is_disabled(sections, host, name)
	for _, section in ipairs { rawget(sections, host) or {}, sections["*"] } do
		for _, disabled in ipairs(rawget(section, "modules_disabled") or {}) do
			if disabled == name then return true; end
		end
	end
	return false;
end

-- Unloads modules that others needed and that nothing needs any more. Adds those to `lost`.
local function unload_unneeded(host, names, wanted, lost)
	for _, name in ipairs(sorted(names)) do
		local environment = modules.get_module(host, name);
		lost[name] = true;
		if environment and not wanted[name] and not dependent(host, name) then
			unload(host, name);
			unload_unneeded(host, environment.module.dependencies or {}, wanted, lost);
		end
	end
end

-- Loads and unloads modules of a host. Adds to `lost` those that it does not have any more.
local function change_modules(host, before, wanted, new, lost)
	local present, unwanted, needed = {}, {}, {};
	for name in pairs(wanted) do present[name] = has_module(host, name) or nil; end
	load_missing(host, wanted);
	for name in pairs(before) do
		if not wanted[name] then
			lost[name] = true;
			if modules.is_loaded(host, name) then unwanted[#unwanted + 1] = name; end
		end
	end
	-- First those that need others.
	for _, name in ipairs(by_depth(host, unwanted)) do
		local environment, other = modules.get_module(host, name), dependent(host, name);
		if other then
			-- Otherwise it stays as well after a start.
			if is_disabled(new, host, name) then
				note("failed", "unload", name, host, other .. " needs it");
				unfinished[host] = true;
			end
		elseif name:match("^auth_") and not is_trial and not modules.is_loaded(host, provider(new, host)) then
			-- Without any, nobody could log in.
			note("failed", "unload", name, host, provider(new, host) .. " is missing");
		elseif environment then
			for need in pairs(environment.module.dependencies or {}) do needed[need] = true; end
			unload(host, name);
		end
		pause();
	end
	unload_unneeded(host, needed, wanted, lost);
	-- What went with a module that was unloaded.
	load_missing(host, present);
end

-- Whether a host wants a global module, or has one that needs it.
local function is_used(name, new)
	for host in pairs(hosts) do
		local has_it = modules.is_loaded(host, name) and not unloaded[host .. " " .. name];
		if has_it or dependent(host, name) then return true; end
	end
	for host in pairs(new) do
		if host ~= "*" and rawget(hosts, host) and wanted_modules(new, host)[name] then return true; end
		pause();
	end
	return false;
end

-- Unloads global modules that nothing needs any more.
local function unload_global(names, new)
	for _, name in ipairs(by_depth("*", sorted(names))) do
		local environment = modules.get_module("*", name);
		if environment and not dependent("*", name) and not is_used(name, new) then
			unload("*", name);
			unload_global(environment.module.dependencies or {}, new);
		end
	end
end

---- Options

-- Gives open sessions the roles of today: they have those of their login.
local function change_roles(host, authz)
	local has_sessions, session_lib = pcall(require, "util.session");
	if rawget(authz, "get_user_role") and has_sessions and session_lib.set_role then
		for username, user in pairs(hosts[host].sessions or {}) do
			local role = authz.get_user_role(username);
			for _, session in pairs(user.sessions) do
				if role and session.role ~= role then session_lib.set_role(session, role); end
			end
		end
	end
end

-- Changes the role of users without another one in place, which follows from the authentication.
local function change_default_role(host, new)
	local get_role = hosts[host].authz and rawget(hosts[host].authz, "get_user_role");
	local _, number = upvalue(get_role, "default_user_role");
	if not number or is_trial or option(new, host, "default_user_role") then return; end
	local is_anonymous = option(new, host, "authentication") == "anonymous";
	debug.setupvalue(get_role, number, is_anonymous and "prosody:guest" or "prosody:registered");
	change_roles(host, hosts[host].authz);
end

-- Changes the sets of administrators in place. Nothing looks for another instance of the module that has them.
local function change_admins(host, old, new)
	local authz = hosts[host].authz;
	local get_role = authz and (rawget(authz, "get_user_role") or rawget(authz, "get_user_roles"));
	local own = upvalue(get_role, "config_admin_jids");
	if not own then return wait_for_restart(old, host, "admins"); end
	if is_trial then return note("done", "option", "admins", host); end
	local everywhere = upvalue(get_role, "config_global_admin_jids");
	local function fill(jids, ...)
		for jid in jids do jids:remove(jid); end
		for _, list in ipairs { ... } do
			for _, jid in ipairs(list) do jids:add(prep(jid)); end
		end
	end
	local section = rawget(new, host);
	local globally = rawget(new["*"], "admins") or {};
	fill(own, section and rawget(section, "admins") or {}, globally);
	if everywhere then fill(everywhere, globally); end
	change_roles(host, authz);
	return note("done", "option", "admins", host);
end

-- Shared modules that this run has reloaded, with their instances on all hosts.
local reloaded = {};
-- Modules whose reload has failed: by host, a table of names.
local behind = {};

local function reload_module(host, name, options, old, new)
	if reloaded[name] then return; end
	if is_trial then return note("done", "reload", name, host, table.concat(options, ", ")); end
	local before = modules.get_module(host, name);
	local ok, result, reason = xpcall(with_contexts, debug.traceback, false, modules.reload, host, name);
	local is_done = ok and result;
	if is_done then
		if behind[host] then behind[host][name] = nil; end
		note("done", "reload", name, host, table.concat(options, ", "));
		-- What it needs no more.
		local needed, now_needed = before.module.dependencies or {}, modules.get_module(host, name).module.dependencies or {};
		local unneeded, lost = {}, {};
		for need in pairs(needed) do unneeded[need] = not now_needed[need] or nil; end
		if next(unneeded) and host ~= "*" then
			unload_unneeded(host, unneeded, wanted_modules(new, host), lost);
			unload_global(lost, new);
		end
	else
		behind[host] = behind[host] or {};
		behind[host][name] = true;
		unfinished[host] = true;
		local is_loaded = modules.is_loaded(host, name);
		if not is_loaded then
			-- As it was.
			clear(host, name);
			is_loaded = pcall(with_configuration, old, modules.load, host, name) and modules.is_loaded(host, name);
		end
		reason = tostring(ok and reason or result):match("^[^\n]*");
		note("failed", is_loaded and "reload" or "load", name, host, reason);
		-- What went with it.
		if host ~= "*" then load_missing(host, wanted_modules(new, host)); end
	end
	if host == "*" and modules.get_module(host, name) ~= before then
		reloaded[name] = true;
		-- They still have the environment of the old one.
		for _, other in ipairs(sorted(hosts)) do
			if modules.is_loaded(other, name) then modules.reload(other, name); end
			pause();
		end
	end
end

-- Reloads the modules of a host whose files have changed, or that have read one of the changed options while they were
-- loaded.
local function change_options(host, changed, changed_globally, changed_files, old, new)
	if lacking.options then
		for name in pairs(changed) do
			if host == "*" or not changed_globally[name] then wait_for_restart(old, host, name); end
		end
		return;
	end
	local todo = {};
	for name, environment in pairs(modules.get_modules(host) or {}) do
		local key, options = host == "*" and "*" .. name or name, {};
		local again = read_again[key] or {};
		for option_name in pairs(read_at_load[key] or {}) do
			if changed[option_name] and not again[option_name] then options[option_name] = true; end
		end
		for option_name in pairs(read_globally[key] or {}) do
			if changed_globally[option_name] then options[option_name] = true; end
		end
		-- Every module with a dependency reads it.
		options.modules_disabled = nil;
		if next(options) or changed_files[name] or behind[host] and behind[host][name] then
			todo[#todo + 1] = {
				name = name, options = sorted(options), environment = environment, depth = depth(host, name, {}),
			};
		end
	end
	table.sort(todo, function (a, b) return a.depth < b.depth or a.depth == b.depth and a.name < b.name; end);
	for _, it in ipairs(todo) do
		if it.name == "authz_internal" then
			for _, option_name in ipairs(it.options) do
				if option_name == "admins" then
					change_admins(host, old, new);
				elseif option_name == "authentication" then
					change_default_role(host, new);
				else
					wait_for_restart(old, host, option_name);
				end
			end
		elseif never_reloaded[it.name] or it.name:match("^storage_") then
			for _, option_name in ipairs(it.options) do
				if not places[option_name] then wait_for_restart(old, host, option_name); end
			end
		elseif modules.get_module(host, it.name) == it.environment then
			-- Otherwise it was reloaded with a module that it depends on.
			reload_module(host, it.name, it.options, old, new);
		end
		pause();
	end
end

---- A run

local function run(new, changed_files)
	local old = applied;
	local globally = differences(old["*"], new["*"]);
	local any_globally = next(globally) ~= nil or next(changed_files) ~= nil;
	if globally.plugin_paths then
		if plugin_dirs then change_plugin_paths(); else wait_for_restart(old, "*", "plugin_paths"); end
	end
	local not_opened = {};
	if not lacking.ports then
		for _, name in ipairs { "use_ipv4", "use_ipv6" } do
			if globally[name] then change_default_interfaces(old, name); end
		end
		not_opened = change_ports(old, new);
	else
		for name in pairs(globally) do
			local is_of_ports = name:match("ports?$") or name:match("interfaces?$") or name:match("^use_ipv");
			if is_of_ports then wait_for_restart(old, "*", name); end
		end
	end
	local retried = unfinished;
	unfinished, reloaded = {}, {};
	local lost, changes = {}, {};
	local gone, fresh = change_hosts(old, new, lost);
	for host in pairs(new) do
		if host ~= "*" and rawget(hosts, host) and not fresh[host] and not gone[host] then
			local section = rawget(new, host);
			local changed = differences(rawget(old, host) or {}, section);
			for option_name in pairs(globally) do
				if rawget(section, option_name) == nil then changed[option_name] = true; end
			end
			if next(changed) or any_globally or retried[host] then changes[#changes + 1] = { host, changed }; end
		end
	end
	table.sort(changes, function (a, b) return a[1] < b[1]; end);
	for _, it in ipairs(changes) do
		local host, changed = it[1], it[2];
		if changed.modules_enabled or changed.modules_disabled or globally.modules_enabled or globally.modules_disabled
			or changed.authentication or changed.anonymous_login or retried[host] then
			if not lacking.modules then
				local before, wanted = wanted_modules(old, host), wanted_modules(new, host);
				change_modules(host, before, wanted, new, lost);
			else
				for _, name in ipairs { "modules_enabled", "modules_disabled", "authentication", "anonymous_login" } do
					if changed[name] then wait_for_restart(old, globally[name] and "*" or host, name); end
				end
			end
		end
		if not lacking.hosts and (changed.name or changed.disco_hidden) then
			local children = hostmanager.get_children(host:match("%.(.*)") or "*");
			-- Without any it is a table of nobody's.
			if next(children) and is_trial then
				note("done", "option", "name", host);
			elseif next(children) then
				children[host] = not option(new, host, "disco_hidden") and (option(new, host, "name") or true) or nil;
				note("done", "option", "name", host);
			else
				wait_for_restart(old, host, "name");
			end
		end
		pause();
	end
	unload_global(lost, new);
	if not lacking.ports then retry_ports(not_opened); end
	if globally.modules_enabled or globally.modules_disabled then
		-- Shared modules may look whether they are enabled for all hosts while they are loaded.
		local before, wanted = wanted_modules(old, "*"), wanted_modules(new, "*");
		for name in pairs(modules.get_modules("*") or {}) do
			if before[name] ~= wanted[name] then changed_files[name] = true; end
		end
	end
	if any_globally then change_options("*", globally, globally, changed_files, old, new); end
	for _, it in ipairs(changes) do
		change_options(it[1], it[2], globally, changed_files, old, new);
		if not lacking.ports then change_names(old, it[1], it[2]); end
		pause();
	end
	for name in pairs(globally) do
		-- mod_posix of 0.12 reads it again.
		local is_live = name == "umask" and modules.is_loaded("*", "posix");
		if read_at_start[name] and not is_live then wait_for_restart(old, "*", name); end
	end
	note_waiting(new);
end

-- Remembers a configuration as the one that is applied.
local function remember(configuration)
	applied = {};
	for host, section in pairs(configuration) do applied[host] = section; end
end

-- Whether the event `config-reloaded` is ours.
local is_ours = false;
-- The digest of the certificates that Prosody has taken up. An interrupted reload may not have told it of newer ones.
local taken_up_certificates = certificates_at_start;

-- Whether a table of names has a name, or a domain above it.
local function covers(names, name)
	while name do
		if names[name] then return true; end
		name = name:match("%.(.+)$");
	end
	return false;
end

-- Whether a host has one of the renewed certificates, under its own name or another.
local function is_renewed(host, configuration, renewed)
	if covers(renewed, host) then return true; end
	for _, service in ipairs { "http", "https", "c2s_direct_tls", "s2s_direct_tls" } do
		local other = option(configuration, host, service .. "_host");
		if type(other) == "string" and covers(renewed, other) then return true; end
	end
	return false;
end

-- Makes the TLS contexts of a host anew.
local function refresh_tls(host)
	local tls = modules.get_module(host, "tls");
	if tls and tls.module.load then
		is_refreshing = true;
		finally(function () is_refreshing = false; end, tls.module.load, true);
	end
	add_sni_host(host);
end

local function fire_config_reloaded(new)
	is_ours = true;
	finally(function () is_ours = false; end, function ()
		prosody.events.fire_event("reloading-config");
		prosody.events.fire_event("config-reloaded", { filename = prosody.config_file, config = new });
	end);
end

-- Calls `f` while hosts do not make all of their TLS contexts at `config-reloaded`.
local function without_refresh(f, ...)
	local put_aside = {};
	for host in pairs(hosts) do
		local tls = modules.get_module(host, "tls");
		put_aside[#put_aside + 1] = tls and tls.module.load;
	end
	for _, load in ipairs(put_aside) do prosody.events.remove_handler("config-reloaded", load); end
	with_contexts(true, finally, function ()
		for _, load in ipairs(put_aside) do prosody.events.add_handler("config-reloaded", load); end
		for _, _, _, _, port in portmanager.get_active_services():iter(nil, nil, nil, nil) do
			-- portmanager has put the new one where nothing looks for it.
			port.server.tls_ctx = port.server._sslctx or port.server.tls_ctx;
		end
	end, f, ...);
end

-- Lets Prosody take up certificates, TLS options and the log, if they have changed.
local function announce(new, request)
	local needed, is_stale, affected = false, false, {};
	local is_every = request.last ~= taken_up_certificates;
	for name in pairs(differences(applied["*"] or {}, new["*"])) do
		needed = needed or is_taken_up(name);
		is_every = is_every or is_taken_up(name) and not without_tls[name];
	end
	for host, section in pairs(new) do
		local is_taken = is_every or is_renewed(host, new, request.renewed);
		for name in pairs(differences(rawget(applied, host) or {}, section)) do
			is_taken = is_taken or is_taken_up(name);
		end
		if rawget(hosts, host) then
			affected[host] = is_taken or nil;
		elseif host ~= "*" then
			-- Its certificate is looked for by its name.
			is_stale = is_stale or not rawget(section, "certificate");
		end
	end
	for host in pairs(hosts) do affected[host] = covers(affected, host) or nil; end
	if prosody.reopen_logfiles then prosody.reopen_logfiles(); end
	if not add_sni_host or lacking.certificates or lacking.ports then
		if needed or next(affected) then fire_config_reloaded(new); end
		affected = {};
	elseif needed then
		without_refresh(fire_config_reloaded, new);
	elseif is_stale or next(affected) then
		certmanager.reload_ssl_config();
	end
	for _, host in ipairs(sorted(affected)) do
		local ok, problem = xpcall(refresh_tls, debug.traceback, host);
		if not ok then note("failed", "certificate", host, host, tostring(problem):match("^[^\n]*")); end
		pause();
	end
	taken_up_certificates = request.certificates;
end

-- The digests of the files of modules, by path, when they were loaded. An interrupted reload may have left newer ones.
local digests = {};

-- The digests of the present files of loaded modules that are not Prosody's own, and the names of the modules.
local function read_module_files()
	local own, found, names = prosody.paths.source .. "/modules/", {}, {};
	for host in pairs(applied) do
		for name, environment in pairs(modules.get_modules(host) or {}) do
			local path = environment.module.path;
			if path and path:sub(1, #own) ~= own and not names[path] then
				local file = io.open(path, "rb");
				names[path], found[path] = name, file and sha1(file:read("*a"), true);
				if file then file:close(); end
			end
		end
		if loading == 0 then pause(); end
	end
	return found, names;
end

-- Notes what a run would do with another configuration.
local function try(request)
	local kept = { waiting, unfinished, behind, closed, reloaded };
	waiting = {};
	for id, it in pairs(kept[1]) do waiting[id] = it; end
	is_trial = true;
	finally(function ()
		is_trial, unloaded = false, {};
		waiting, unfinished, behind, closed, reloaded = unpack(kept);
	end, run, request.configuration, {});
end

local function apply(request)
	notify_reloading();
	problems = {};
	local changed_files, is_announced = request.changed_files, request.is_announced;
	local files, names = read_module_files();
	for path, name in pairs(names) do
		if digests[path] and digests[path] ~= files[path] then changed_files[name] = true; end
	end
	-- It may change while others work.
	repeat
		local new = config.getconfig();
		if not is_announced then announce(new, request); end
		run(new, changed_files);
		remember(new);
		changed_files, request.last, request.renewed = {}, taken_up_certificates, {};
	until config.getconfig() == new;
	digests = read_module_files();
	-- Those of before, if they have changed since.
	for path, digest in pairs(files) do digests[path] = digest; end
	prosody.events.fire_event("entrypoint-applied");
end

-- One request after another.
local runner = async.runner(function (request)
	report, since = request.report, now();
	local ok, problem = xpcall(request.work, debug.traceback, request);
	if not ok then note("failed", "error", nil, nil, tostring(problem)); end
	if is_reloading and request.work == apply then notify_ready(); end
	report("end\t" .. request.number);
end);

local function log_line(line)
	log(line:match("^failed") and "error" or "info", "%s", (line:gsub("\t+", " ")));
end

-- Has the hosts activated and deactivated that came or went, and waits for it.
if shards then
	shards.upvalue = upvalue;
	function shards.move()
		local wait, done = async.waiter();
		runner:run {
			work = move, number = "", report = function (line)
				if line:match("^failed") then log_line(line); elseif line:match("^end") then done(); end
			end,
		};
		wait();
	end
end

---- The socket

local listener = {};
-- What came in on each connection, without the lines that were answered.
local input = {};

-- A list with commas as a table of names.
local function names(text)
	local found = {};
	for name in (text or ""):gmatch("[^,]+") do found[name] = true; end
	return found;
end

-- Parses a configuration and makes it the newest. Answers why not if it has an error.
local function load_configuration(path, connection)
	local ok, _, reason = config.load(path);
	if not ok then connection:write("refused\t" .. tostring(reason):gsub("[\r\n]+", " ") .. "\n"); end
	return ok;
end

local is_stopping, was_ready = false, false;

-- Whether a host should be served and is not loaded. During a run, one that comes or goes is not missed.
local function is_missing(host)
	local module = host ~= "*" and served_as(applied, host);
	if not module or not served_as(config.getconfig(), host) then return false; end
	if shards and not shards.has(host) then return false; end
	return not rawget(hosts, host) or module ~= "" and not modules.is_loaded(host, module);
end

-- Answers a line.
local function answer(connection, line)
	-- It may be gone.
	local function write(text) pcall(connection.write, connection, text .. "\n"); end
	local path = line:match("^load (.+)$");
	if path then
		if load_configuration(path, connection) then write("loaded"); end
		return;
	end
	local number = line:match("^ready (%d+)$");
	if number then
		was_ready = true;
		return write("end\t" .. number);
	end
	number = line:match("^status (%d+)$");
	if number then
		for _, text in ipairs(problems) do write(text); end
		for _, host in ipairs(sorted(applied)) do
			if is_missing(host) then write("host\t" .. host); end
		end
		if not lacking.ports then
			for _, _, port in portmanager.get_active_services():iter(nil, nil, nil, nil) do write("port\t" .. port); end
		end
		if is_stopping then write("stopping"); end
		if was_ready then write("was-ready"); end
		return write("end\t" .. number);
	end
	number, path = line:match("^compare (%d+) (.+)$");
	if number then
		local newest, place = upvalue(config.getconfig, "config");
		if not load_configuration(path, connection) then return; end
		local configuration = config.getconfig();
		if place then
			debug.setupvalue(config.getconfig, place, newest);
		else
			config.load(prosody.config_file);
		end
		return runner:run { work = try, number = number, configuration = configuration, report = write };
	end
	local last, certificates, rest;
	number, last, certificates, rest = line:match("^apply (%d+) (%x+) (%x+)(.*)$");
	if not number then return connection:close(); end
	runner:run {
		work = apply,
		number = number,
		last = last,
		certificates = certificates,
		renewed = names(rest:match("^ renewed (%S+)")),
		changed_files = names(rest:match(" modules (.+)$")),
		report = write,
	};
end

function listener.onconnect(connection)
	input[connection] = "";
end

function listener.onincoming(connection, data)
	local text = (input[connection] or "") .. (data or "");
	for line in text:gmatch("([^\n]*)\n") do answer(connection, line); end
	input[connection] = text:match("[^\n]*$");
end

function listener.ondisconnect(connection)
	input[connection] = nil;
end

-- Requests before the end of the start wait until then.
local function listen()
	local unix = require "socket.unix";
	-- Some versions of LuaSocket have just the function.
	local socket = (type(unix) == "table" and unix.stream or unix)();
	socket:settimeout(0);
	os.remove(socket_path);
	assert(socket:bind(socket_path));
	assert(socket:listen());
	if server.wrapserver then
		server.wrapserver(socket, socket_path, 0, listener);
	else
		server.watchfd(socket:getfd(), function ()
			local client = socket:accept();
			if client then server.wrapclient(client, "unix", 0, listener, "*a"); end
		end);
	end
end

listen();

-- An error of ours ends nobody else's work.
local function handle(event, priority, f)
	prosody.events.add_handler(event, function (...)
		local ok, problem = xpcall(f, debug.traceback, ...);
		if not ok then log("error", "%s: %s", event, problem); end
	end, priority);
end

handle("server-stopping", 1000, function () is_stopping = true; end);

if notify_socket then
	-- 13.0 has its own for the start and the stop. Those for a reload do not know its end.
	for _, event in ipairs { "reloading-config", "config-reloaded" } do
		for _, f in ipairs(prosody.events.get_handlers(event) or {}) do
			if upvalue(f, "notify_socket") == notify_socket then prosody.events.remove_handler(event, f); end
		end
	end
end
local notify_path = not notify_socket and os.getenv("NOTIFY_SOCKET");
if notify_path then
	local unix = require "socket.unix";
	notify_socket = type(unix) == "table" and unix.dgram();
	local connected, problem;
	if notify_socket then connected, problem = notify_socket:setpeername(notify_path); end
	if connected then
		handle("server-started", 0, notify_ready);
		handle("server-stopping", 0, function () notify("STOPPING=1"); end);
	else
		log("warn", "Nobody is notified on %s: %s", notify_path, problem or "LuaSocket cannot");
		notify_socket = nil;
	end
end
if notify_socket then notify_socket:settimeout(0); end

handle("hosts-activated", 0, remember);

handle("server-started", -1000, function ()
	digests = read_module_files();
	loading = 0;
	report = function () end;
	for host in pairs(applied) do
		if host ~= "*" and rawget(hosts, host) then
			for _, name in ipairs(sorted(wanted_modules(applied, host))) do
				if not has_module(host, name) then
					unfinished[host] = true;
					clear(host, name);
					note("failed", "load", name, host, "see Prosody's log");
				end
			end
		end
	end
end);

handle("reloading-config", 1000, function ()
	is_refreshing = true;
	if not is_ours then notify_reloading(); end
end);

-- After a SIGHUP that somebody sends to Prosody itself.
handle("config-reloaded", -1000, function ()
	is_refreshing = false;
	if is_ours then return; end
	runner:run { work = apply, number = "", changed_files = {}, is_announced = true, report = log_line };
end);
