-- A `prosodyctl` command that reads or writes an archive, or repairs stores. Standard output or input is the archive
-- alone: this runs before Prosody, whose messages go to standard error. What there is to say goes there, too, on lines that
-- begin with `entrypoint` and a level. For a failure, that is its status, and then comes its name, if the entrypoint
-- explains it.
local writes = options.action == "backup";
local archive = writes and io.stdout or io.stdin;
archive:setvbuf("full", 65536);
-- Another process may have the same standard error: lines stay whole.
io.stderr:setvbuf("line");
io.stdout = io.stderr;
io.output(io.stderr);
function print(...)
	local texts = table.pack(...);
	for i = 1, texts.n do texts[i] = tostring(texts[i]); end
	io.stderr:write(table.concat(texts, "\t"), "\n");
end

local function say(level, text, ...)
	io.stderr:write("entrypoint\t", level, "\t", (text:format(...):gsub("%c+", " ")), "\n");
end

local shown = os.time();

-- Shows on a terminal how far it is, at most once a second.
local function progress(text, ...)
	if not options.shows_progress or os.time() == shown then return; end
	shown = os.time();
	say("progress", text, ...);
end

local function fail(status, text, ...)
	error({ status = status, text = text:format(...) }, 0);
end

local function entrypoint_data()
	-- Nearly everything is garbage soon.
	pcall(collectgarbage, "generational");
	local ok, result = xpcall(function ()
		local encode, decode = load_json();
		local open_writer, open_reader = load_tar(fail);
		local stores = load_stores(options, fail, say);
		local check_list = load_lists(options, require "socket".sleep);
		if options.action == "repair" or options.action == "validate" then
			return load_repair(options, stores, check_list, fail, say);
		elseif not writes then
			return load_restore(options, archive, stores, check_list, load_read, encode, decode, open_reader, fail, say, progress);
		end
		local reader = load_read(options, stores, check_list, fail, say);
		return load_archive(options, archive, stores, reader, encode, open_writer, fail, say, progress);
	end, function (problem)
		return type(problem) == "table" and problem or { status = 71, text = debug.traceback(tostring(problem)) };
	end);
	if ok then os.exit(result); end
	say(("%d\t%s"):format(result.status, result.name or ""), "%s", result.text);
	os.exit(result.status);
end

-- `prosodyctl` looks here for commands that it does not know, under the names of 13.0 and 0.12.
for _, prefix in ipairs({ "prosody.util", "util" }) do
	package.preload[prefix .. ".prosodyctl.entrypoint_data"] = function ()
		return { entrypoint_data = entrypoint_data };
	end;
end
