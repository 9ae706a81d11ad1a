-- Prints a digest of what each function of Prosody's util.encodings that uses ICU returns for every code point, alone and
-- in contexts. `collect` runs it with all of ICU's data and with the image's: the lines must be the same.
--
-- usage: lua5.4 encodings.lua

package.cpath = "/usr/lib/prosody/?.so;" .. package.cpath;
local encodings = require "util.encodings";
local sha256 = require "util.hashes".sha256;

local functions = {
	to_ascii = encodings.idna.to_ascii;
	to_unicode = encodings.idna.to_unicode;
	skeleton = encodings.confusable.skeleton;
};
for _, profile in ipairs { "nameprep", "nodeprep", "resourceprep", "saslprep" } do
	local prepare = encodings.stringprep[profile];
	functions[profile] = prepare;
	-- Unassigned code points are errors.
	functions[profile .. " strict"] = function (text) return prepare(text, true); end
end

-- In the other planes, no code point has rules of its own for its neighbours.
local planes_in_context = { [0] = true, [1] = true, [14] = true };
-- After a combining mark and before a letter, and between letters that are written from right to left.
local contexts = {
	function (char) return "A\u{301}" .. char .. "b"; end;
	function (char) return "\u{5d0}" .. char .. "\u{5d1}"; end;
};

local names = {};
for name in pairs(functions) do names[#names + 1] = name; end
table.sort(names);

local function digest(f, first, last, context)
	local result, results, count = "", {}, 0;
	for code = first, last do
		local char = utf8.char(code);
		count = count + 1;
		results[count] = tostring((f(context and context(char) or char)));
		if count == 4096 or code == last then
			result = sha256(result .. table.concat(results, "\n", 1, count), true);
			count = 0;
		end
	end
	return result;
end

for _, name in ipairs(names) do
	for plane = 0, 16 do
		local first, last = plane << 16, plane << 16 | 0xFFFF;
		print(name, plane, "alone", digest(functions[name], first, last));
		for i, context in ipairs(planes_in_context[plane] and not name:find("strict") and contexts or {}) do
			print(name, plane, "context " .. i, digest(functions[name], first, last, context));
		end
	end
end
