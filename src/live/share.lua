-- Compiles the code of modules once for all hosts.
--
-- Prosody reads, scans and compiles each file of a module again for each host. Here, a file is compiled once, as a function
-- that takes an environment and returns the code for it: each host has variables of its own, and only the instructions
-- are shared. Everything else is done by Prosody's own loader, whose methods are replaced on the one loader of modules.
--
-- What is used of Prosody's internals is looked for first. If it is missing, nothing is shared.

local config = require "core.configmanager";
local lfs = require "lfs";
local loader = require "core.modulemanager".loader;
local log = require "util.logger".init("entrypoint");

-- The number of virtual hosts from which `auto` shares.
local many = 50;

-- In percent of the memory in use after a collection of garbage, the memory that starts the next one during a start.
local start_pause = 150;

-- After the start, how much faster than memory grows Lua 5.4 collects garbage. Prosody's 500 visits everything while memory
-- grows by 0.2 %, and nobody is answered. With this, it grows by 10 %, and others have their turns.
local speed = 10;

local methods = getmetatable(loader).__index;

for library, functions in pairs {
	[config] = { "get", "getconfig" },
	[methods] = { "load_code", "load_code_ext", "load_file" },
} do
	for _, name in ipairs(functions) do
		if type(library[name]) ~= "function" then error("Prosody has no function " .. name, 0); end
	end
end

-- The list of directories with modules, a variable of the loader's. It may be changed in place.
local directories;
for i = 1, 255 do
	local name, value = debug.getupvalue(methods.load_file, i);
	if name == "plugin_dir" then directories = value; end
	if not name then break; end
end
if type(directories) ~= "table" then error("Prosody has no list of directories with modules", 0); end

-- Lua 5.2 and 5.3 may return one function, without variables, for two hosts.
local make_function = load("return function () end");
if make_function() == make_function() then error(_VERSION .. " shares too much", 0); end

-- Whether a configuration has many virtual hosts.
local has_many = setmetatable({}, { __mode = "k" });

local function is_wanted()
	local setting = config.get("*", "share_module_code");
	if type(setting) == "boolean" then return setting; end
	local sections = config.getconfig();
	if has_many[sections] == nil then
		local number = 0;
		for host, section in pairs(sections) do
			local is_served = host ~= "*" and rawget(section, "enabled") ~= false;
			if is_served and not rawget(section, "component_module") then number = number + 1; end
		end
		has_many[sections] = number >= many;
		if number >= many then log("debug", "Modules share their code: %d virtual hosts", number); end
	end
	return has_many[sections];
end

-- What a search for a list of file names would find, as a text that changes with the files. `nil` if one is so new that
-- its next change may leave no trace.
local function look_for(names)
	local now, found = os.time(), {};
	for _, directory in ipairs(directories) do
		for _, name in ipairs(names) do
			local path = directory .. name;
			local file = lfs.attributes(path);
			if file then
				if file.change >= now - 1 then return nil; end
				found[#found + 1] = ("%s %d %d %d %d %d"):format(
					path, file.dev, file.ino, file.size, file.modification, file.change
				);
			end
		end
	end
	return table.concat(found, "\n");
end

-- By request. `make` returns the code for an environment, and is missing where the code cannot be shared.
local entries = {};
-- A start takes each file as it was first seen.
local is_started = false;

local function is_current(entry)
	if not is_started then return true; end
	for _, search in ipairs(entry.searches) do
		if not search.found or search.found ~= look_for(search.names) then return false; end
	end
	return true;
end

local function copy(metadata)
	if type(metadata) ~= "table" then return metadata; end
	local result = {};
	for key, value in pairs(metadata) do result[key] = value; end
	return result;
end

-- Answers a request with code for an environment. `load_code` is Prosody's own answer, with a loader to read files with.
local function share(request, environment, load_code)
	if not is_wanted() then return load_code(loader); end
	local entry = entries[request];
	if entry and is_current(entry) then
		if not entry.make then return load_code(loader); end
		return entry.make(environment), entry.path, copy(entry.metadata);
	end
	local searches, content = {}, nil;
	local reader = setmetatable({}, { __index = loader });
	function reader:load_file(names)
		searches[#searches + 1] = { names = names, found = look_for(names) };
		local path, metadata;
		content, path, metadata = methods.load_file(self, names);
		return content, path, metadata;
	end
	local code, path, metadata = load_code(reader);
	if not code then return code, path, metadata; end
	-- Prosody has compiled the same text, so that nothing in it can end the function. The first line stays the first.
	local make = content and load("local _ENV = ...; return function (...) " .. content .. "\nend", "@" .. path, "t");
	entries[request] = { make = make, path = path, metadata = metadata, searches = searches };
	if not make then return code, path, metadata; end
	return make(environment), path, copy(metadata);
end

rawset(loader, "load_code", function (_, plugin, resource, environment)
	local request = ("%s\n%s"):format(plugin, resource);
	return share(request, environment, function (self) return methods.load_code(self, plugin, resource, environment); end);
end);

rawset(loader, "load_code_ext", function (_, plugin, resource, extension, environment)
	local request = ("%s\n%s\n%s"):format(plugin, resource, extension);
	return share(request, environment, function (self)
		return methods.load_code_ext(self, plugin, resource, extension, environment);
	end);
end);

-- Prosody's pauses between two collections of garbage are so short that they would take most of a start with many hosts.
local pause;
if is_wanted() and not config.get("*", "gc") then
	local ok, previous = pcall(collectgarbage, "setpause", start_pause);
	pause = ok and previous;
end

prosody.events.add_handler("server-started", function ()
	is_started = true;
	if not pause then return; end
	collectgarbage("setpause", pause);
	if _VERSION == "Lua 5.4" then collectgarbage("setstepmul", speed); end
	-- Without this, the long pause would end first.
	collectgarbage("restart");
end);
