-- Archives whose members are regular files (POSIX.1-2024, pax, "ustar Interchange Format"). This is the body of a
-- function that takes `fail`, and returns a function for each direction.
local fail = ...;

local block = 512;
local piece = 64 * 1024;
local header = "c100c8c8c8c12c12c8c1c100c6c2c32c32c8c8c155c12";

-- The member `size` of a header has eleven octal digits.
local largest = 8 ^ 11 - 1;

local function sum(text)
	local total = 0;
	for i = 1, block do total = total + text:byte(i); end
	return total;
end

-- Returns a function that writes a member, and one that ends the archive.
local function writer(out, time)
	local function write(text)
		local ok, problem = out:write(text);
		if not ok then fail(73, "the archive cannot be written: %s", problem); end
	end

	local function write_header(name, size, kind)
		local text = header:pack(name, "0000600", "0000000", "0000000", ("%011o"):format(size), ("%011o"):format(time),
			"        ", kind, "", "ustar", "00", "", "", "", "", "", "");
		write(text:sub(1, 148) .. ("%06o\0 "):format(sum(text)) .. text:sub(157));
	end

	-- A name or size that the header has no room for comes before it.
	local function write_extension(key, value)
		local rest = (" %s=%s\n"):format(key, value);
		local length = #rest + 2;
		while #(length .. rest) ~= length do length = #(length .. rest); end
		write_header("pax-header", length, "x");
		write(length .. rest .. ("\0"):rep(-length % block));
	end

	-- `read` returns the content piece by piece.
	local function add(name, size, read)
		if #name > 100 then write_extension("path", name); end
		if size > largest then write_extension("size", ("%d"):format(size)); end
		write_header(name:sub(1, 100), size <= largest and size or 0, "0");
		local rest = size;
		while rest > 0 do
			local content = read(math.min(rest, piece));
			if not content or content == "" then fail(71, "%s has become shorter while it was read", name); end
			write(content);
			rest = rest - #content;
		end
		write(("\0"):rep(-size % block));
	end

	return add, function ()
		write(("\0"):rep(2 * block));
		local ok, problem = out:flush();
		if not ok then fail(73, "the archive cannot be written: %s", problem); end
	end;
end

-- Returns a function that returns the name and size of the next member, and one that returns the next piece of its
-- content. The first returns `nil` after the last member, the second after the last piece.
local function reader(input)
	local rest, padding = 0, 0;

	local function take(length)
		local text = input:read(length);
		if not text or #text < length then fail(65, "the archive is cut off: it has no end"); end
		return text;
	end

	local function read()
		if rest == 0 then return nil; end
		local content = take(math.min(rest, piece));
		rest = rest - #content;
		return content;
	end

	local function number(text)
		return tonumber(text:match("^ *([0-7]+)[ %z]*$") or fail(65, "this is not an archive of `backup`"), 8);
	end

	local function next_member()
		while read() do end
		take(padding);
		local extended = {};
		while true do
			local text = take(block);
			if not text:find("[^%z]") then return nil; end
			local name, _, _, _, size, _, check, kind, _, magic, _, _, _, _, _, prefix = header:unpack(text);
			local blank = text:sub(1, 148) .. (" "):rep(8) .. text:sub(157);
			if magic ~= "ustar\0" or number(check) ~= sum(blank) then fail(65, "this is not an archive of `backup`"); end
			size = number(size);
			if kind ~= "x" then
				name = (prefix:gsub("%z.*", "/"):gsub("^/", "") .. name:gsub("%z.*", ""));
				if kind ~= "0" then fail(65, "the archive has something in it that is no file: %s", name); end
				rest = extended.size or size;
				padding = -rest % block;
				return extended.path or name, rest;
			end
			if size > piece then fail(65, "the archive has a name that is too long"); end
			local records = take(size);
			take(-size % block);
			for key, value in records:gmatch("%d+ (%l+)=([^\n]*)\n") do
				if key == "size" then
					value = math.tointeger(tonumber(value:match("^%d+$"))) or fail(65, "this is not an archive of `backup`");
				end
				extended[key] = value;
			end
		end
	end

	return next_member, read;
end

return writer, reader;
