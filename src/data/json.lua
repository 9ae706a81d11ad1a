-- JSON that keeps every value of Prosody's stores. This is the body of a function that returns a function for each
-- direction.
--
-- JSON itself lacks some of them. Those are objects with one member: `$map`, pairs of a table whose keys are not all
-- text; `$bytes`, text that is not UTF-8, in hexadecimal; `$number`, a number that is none or infinite.

-- How deep tables may be in each other. Prosody itself writes no deeper ones.
local deepest = 127;

local types = { boolean = 1, number = 2, string = 3 };

local escaped = setmetatable({ ['"'] = '\\"', ["\\"] = "\\\\" }, {
	__index = function (_, control) return ("\\u%04x"):format(control:byte()); end;
});

local function encode_number(value)
	if math.type(value) == "integer" then return ("%d"):format(value); end
	if value ~= value then return '{"$number":"nan"}'; end
	if value == math.huge or value == -math.huge then return ('{"$number":"%sinf"}'):format(value < 0 and "-" or ""); end
	local text = ("%.15g"):format(value);
	if tonumber(text) ~= value then text = ("%.17g"):format(value); end
	-- Without this, it would come back as an integer.
	return text:find("[.e]") and text or text .. ".0";
end

local function is_before(a, b)
	if type(a) ~= type(b) then return types[type(a)] < types[type(b)]; end
	if type(a) == "boolean" then return b and not a; end
	return a < b;
end

-- Raises an error for a value that no store can have.
local function encode(value, depth)
	local kind = type(value);
	if kind == "string" then
		if not utf8.len(value) then
			return '{"$bytes":"' .. value:gsub(".", function (byte) return ("%02x"):format(byte:byte()); end) .. '"}';
		end
		return '"' .. value:gsub("[%c\"\\]", escaped) .. '"';
	elseif kind == "number" then
		return encode_number(value);
	elseif kind == "boolean" then
		return tostring(value);
	elseif kind ~= "table" then
		error("a store has no " .. kind, 0);
	end
	depth = (depth or 0) + 1;
	if depth > deepest then error("tables are too deep in each other", 0); end
	local keys, is_object, parts = {}, true, {};
	for key in pairs(value) do
		if not types[type(key)] then error("a key of a table is a " .. type(key), 0); end
		is_object = is_object and type(key) == "string" and key:sub(1, 1) ~= "$" and utf8.len(key);
		keys[#keys + 1] = key;
	end
	if #keys > 0 and not is_object and #value == #keys then
		for i = 1, #keys do parts[i] = encode(value[i], depth); end
		return "[" .. table.concat(parts, ",") .. "]";
	end
	table.sort(keys, is_before);
	for i, key in ipairs(keys) do
		local member = encode(value[key], depth);
		parts[i] = is_object and encode(key) .. ":" .. member or "[" .. encode(key) .. "," .. member .. "]";
	end
	local text = table.concat(parts, ",");
	return is_object and "{" .. text .. "}" or '{"$map":[' .. text .. "]}";
end

local unescaped = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" };

-- Of text outside the first plane as two escapes, which we do not write, the two halves stay.
local function unescape(character, digits)
	if character ~= "u" then return (unescaped[character] or character) .. digits; end
	return utf8.char(tonumber(#digits == 4 and digits or error("no JSON: \\u" .. digits, 0), 16));
end

local special = {
	["$map"] = function (pairs)
		local value = {};
		for _, pair in ipairs(pairs) do value[pair[1]] = pair[2]; end
		return value;
	end,
	["$bytes"] = function (digits)
		return (digits:gsub("%x%x", function (byte) return string.char(tonumber(byte, 16)); end));
	end,
	["$number"] = function (name)
		return ({ nan = 0 / 0, inf = math.huge, ["-inf"] = -math.huge })[name];
	end,
};

local words = { ["true"] = true, ["false"] = false };

-- Raises an error for text that is no JSON.
local function decode(text)
	local at, depth = 1, 0;

	local function fail()
		error("no JSON at byte " .. at, 0);
	end

	-- Skips white space, and the character if it is next.
	local function skip(character)
		at = text:find("[^ \t\r\n]", at) or #text + 1;
		local found = text:sub(at, at) == character;
		if found then at = at + 1; end
		return found;
	end

	local function decode_string()
		local _, last, plain = text:find("^([^\"\\]*)\"", at);
		if plain then
			at = last + 1;
			return plain;
		end
		local stop = at;
		repeat
			stop = text:find("[\"\\]", stop) or fail();
			local is_escape = text:byte(stop) == 92;
			stop = stop + (is_escape and 2 or 1);
		until not is_escape
		plain = text:sub(at, stop - 2);
		at = stop;
		return (plain:gsub("\\(.)(%x?%x?%x?%x?)", unescape));
	end

	local function decode_value()
		if skip('"') then return decode_string(); end
		depth = depth + 1;
		-- `$map` and its pairs are two more than the table.
		if depth > 3 * deepest then error("too deep", 0); end
		local value = {};
		if skip("[") then
			if not skip("]") then
				repeat value[#value + 1] = decode_value(); until not skip(",")
				if not skip("]") then fail(); end
			end
		elseif skip("{") then
			if not skip("}") then
				repeat
					local key = skip('"') and decode_string() or fail();
					if not skip(":") then fail(); end
					value[key] = decode_value();
				until not skip(",")
				if not skip("}") then fail(); end
			end
			local key, member = next(value);
			if special[key] then value = special[key](member); end
		else
			local number = text:match("^-?%d[%d.eE+-]*", at);
			local word = number or text:match("^%l+", at);
			value = tonumber(number);
			if value == nil then value = words[word]; end
			if value == nil then fail(); end
			at = at + #word;
		end
		depth = depth - 1;
		return value;
	end

	local value = decode_value();
	skip();
	if at <= #text then fail(); end
	return value;
end

return encode, decode;
