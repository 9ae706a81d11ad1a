-- Reads lists in files, and repairs them. Items are appended in place, so a crash can leave a part of one, and 0.12 appends
-- more after it. This is the body of a function that takes what it needs, and returns a function.
local options, sleep = ...;

local lfs = require "lfs";

-- How often and for how many seconds to wait for a server that may be appending.
local times, pause = 10, 0.1;

-- Calls `take` with each item from a place of a file on, without the others in memory. Adds to `damage` what has to be
-- written over other text: `start`, `old`, `new`, and whether it is the end of the file. Returns the number of items.
local function read(file, start, take, damage)
	file:seek("set", start);
	local text, count, is_in_text, items = "", 0, false, {};
	local environment = { item = function (item) items[#items + 1] = item; end };

	local function finish(is_end)
		-- No byte code.
		local chunk = load(text, "=list", "t", environment);
		items = {};
		local new;
		if not chunk or not pcall(chunk) then
			items = {};
			new = (" "):rep(#text - 1) .. "\n";
		elseif #items > 0 and text:byte(-1) ~= 10 and not (is_end and options.served_since) then
			-- Prosody 13.0 finds items by lines.
			new = text:gsub("\n(}?%);?)$", "%1\n");
		end
		if new and new ~= text then damage[#damage + 1] = { start = start, old = text, new = new, is_end = is_end }; end
		start, text, count = start + #text, "", count + #items;
		-- Not in the protected call: an archive that cannot be written is no broken item.
		for _, item in ipairs(items) do take(item); end
	end

	for line in file:lines("L") do
		-- After a part of an item, the next one is in the same line. No text of an item has the first of these, or in a new
		-- line without a backslash before it the second.
		local last = line:byte(-2);
		local at = last == 123 and line:find("item({\n", -7, true)
			or line:byte() == 105 and not is_in_text and line:find("^item%(");
		if at then
			text = text .. line:sub(1, at - 1);
			if text ~= "" then finish(false); end
			text = line:sub(at);
		else
			text = text .. line;
		end
		is_in_text = last == 92;
		if line == "});\n" or at == 1 and line:find("%);\n$") then finish(false); end
	end
	if text ~= "" then finish(true); end
	return count;
end

-- Writes the replacements in place: whatever the server appends meanwhile stays. `torn` is kept in another file. The index,
-- which 13.0 makes again, is removed. Raises an error if that is not possible.
local function write(path, damage, torn, count)
	local function check(result, problem) return result or error(problem or path .. " has changed", 0); end
	if lfs.symlinkattributes(path, "mode") ~= "file" then error(path .. " is a link", 0); end
	if torn ~= "" then
		local kept = check(io.open(path .. ".torn", "ab"));
		check(kept:write(torn));
		check(kept:close());
	end
	local file = check(io.open(path, "r+b"));
	for _, place in ipairs(damage) do
		check(file:seek("set", place.start) and file:read(#place.old) == place.old);
		check(file:seek("set", place.start) and file:write(place.new));
	end
	check(file:close());
	-- 13.0 cannot read a list that has no items and is not empty.
	if count == 0 then check(io.open(path, "wb")):close(); end
	os.remove((path:gsub("list$", "lidx")));
end

-- Calls `take` with each item of a list. If that is not all of it, returns a level and a text for it. With the option
-- `repairs`, the list is repaired.
return function (path, take)
	local file, problem, code = io.open(path, "rb");
	-- It may have been removed meanwhile.
	if not file and code == 2 then return; end
	if not file then return "error", "Not read: " .. problem; end
	local damage = {};
	local count = read(file, 0, take, damage);

	-- Whether a server may be writing the end.
	local function is_growing()
		local last = damage[#damage];
		return options.served_since and last and last.is_end
			and (lfs.attributes(path, "modification") or 0) >= options.served_since;
	end
	for _ = 1, times do
		if not is_growing() then break; end
		sleep(pause);
		count = count + read(file, table.remove(damage).start, take, damage);
	end
	file:close();
	local torn = "";
	for _, place in ipairs(damage) do
		if place.new:find("^ *\n$") then torn = torn .. place.old; end
	end
	if #damage == 0 or not options.repairs then return torn ~= "" and "cut off" or nil, path; end
	if is_growing() or count == 0 and options.served_since then return "cut off beside a server", path; end
	local ok, reason = pcall(write, path, damage, torn, count);
	if not ok then return "error", ("Not repaired: %s"):format(reason); end
	if torn ~= "" then
		return "warning", ("Repaired: %s had parts of items. Their %d bytes are in %s.torn"):format(path, #torn, path);
	end
end
