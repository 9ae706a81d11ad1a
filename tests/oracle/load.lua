-- Loads each rendered configuration with Prosody's own configuration loader and prints the result as
-- JSON. So the test compares Prosody's values, not text.
--
-- usage: lua5.4 load.lua FILE…      (one JSON object per file and line, in the given order)
--
-- {"error": "…"} if the loader rejects the file, otherwise
-- {"warnings": […], "hosts": {"*": {option: value}, "chat.example": {…}},
--  "modules": {"chat.example": […]}}          (the modules that Prosody would load on the host)
--
-- Integers and floats stay different (1 and 1.0). A table with exactly the keys 1…n is an array, and
-- the empty table is []. Any other table is an object, with numeric keys written as "[1]".
-- A string that is not UTF-8 is {"bytes": "hexadecimal"}.

local source = "/usr/lib/prosody";
package.path = source .. "/?.lua;" .. package.path;
package.cpath = source .. "/?.so;" .. package.cpath;

-- The libraries of 13.0 are below "prosody.". Its loader makes both names work.
if not pcall(require, "prosody.loader") then
	pcall(require, "loader");
end
local function load_library(name)
	local ok, library = pcall(require, "prosody." .. name);
	if ok then
		return library;
	end
	return require(name);
end

prosody = { hosts = {}, events = load_library "util.events".new(), process_type = "prosodyctl" };
prosody.paths = { source = source, config = "/etc/prosody", data = "/var/lib/prosody", plugins = source .. "/modules" };
prosody.platform = "posix";
hosts = prosody.hosts;

-- The module manager requires the API for modules. No module is loaded here, and the real API needs a
-- running server.
package.loaded["prosody.core.moduleapi"], package.loaded["core.moduleapi"] = {}, {};

local configmanager = load_library "core.configmanager";
local modulemanager = load_library "core.modulemanager";

local function quote(text)
	if not utf8.len(text) then
		return '{"bytes":"' .. text:gsub(".", function (c) return ("%02x"):format(c:byte()); end) .. '"}';
	end
	return '"' .. text:gsub('[%c"\\\127]', function (c) return ("\\u%04x"):format(c:byte()); end) .. '"';
end

local encode;

local function encode_table(value)
	local count, highest = 0, 0;
	local is_array = true;
	for key in pairs(value) do
		count = count + 1;
		if math.type(key) == "integer" and key >= 1 then
			highest = math.max(highest, key);
		else
			is_array = false;
		end
	end
	local pieces = {};
	if is_array and highest == count then
		for i = 1, count do
			pieces[i] = encode(value[i]);
		end
		return "[" .. table.concat(pieces, ",") .. "]";
	end
	for key, item in pairs(value) do
		local name = type(key) == "string" and key or "[" .. tostring(key) .. "]";
		pieces[#pieces + 1] = quote(name) .. ":" .. encode(item);
	end
	return "{" .. table.concat(pieces, ",") .. "}";
end

function encode(value)
	local kind = type(value);
	if kind == "string" then
		return quote(value);
	elseif math.type(value) == "float" then
		local text = ("%.17g"):format(value);
		return text:find("^%-?%d+$") and text .. ".0" or text;
	elseif kind == "table" then
		return encode_table(value);
	elseif kind == "function" or kind == "userdata" or kind == "thread" then
		return quote("<" .. kind .. ">");
	end
	return tostring(value);
end

local function load_configuration(path)
	local ok, _, result = configmanager.load(path);
	if not ok then
		return { error = tostring(result) };
	end
	local modules = {};
	for host in pairs(configmanager.getconfig()) do
		if host ~= "*" then
			local names, component = modulemanager.get_modules_for_host(host);
			local list = {};
			for name in names do
				list[#list + 1] = name;
			end
			if component then
				list[#list + 1] = component;
			end
			modules[host] = list;
		end
	end
	return { warnings = result or {}, hosts = configmanager.getconfig(), modules = modules };
end

for i = 1, #arg do
	io.stdout:write(encode(load_configuration(arg[i])), "\n");
end
