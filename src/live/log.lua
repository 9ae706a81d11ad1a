-- Gives Prosody's console a second format: with `format = "json"` in a rule of the option `log`, each line is one JSON
-- object.
--
-- The main file runs this before Prosody sets up its log, which makes the sinks of its rules again at every reload.
-- Without this script, as with a main file of the user's own, the same rule logs text.

local format = require "util.format".format;
local logging = require "core.loggingmanager";
local now = require "util.time".now;
local is_utf8 = require "util.encodings".utf8.valid;
local date, floor, stdout = os.date, math.floor, io.stdout;

local escapes = setmetatable({ ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\t"] = "\\t" }, {
	__index = function (_, control) return ("\\u%04x"):format(control:byte()); end;
});

-- Returns the text for a letter outside ASCII, or for bytes that are none. Nil keeps it.
local function letter(bytes)
	if not is_utf8(bytes) then return "\\ufffd"; end
	-- Controls (U+0080 to U+009F), separators of lines, and controls of the direction (U+2028 to U+202E).
	local control = bytes:match("^\194([\128-\159])$");
	if control then return ("\\u%04x"):format(control:byte()); end
	control = bytes:match("^\226\128([\168-\174])$");
	if control then return ("\\u20%02x"):format(control:byte() - 128); end
end

-- The inside of a string.
local function escaped(text)
	if not text:find('[%c"\\\128-\255]') then return text; end
	text = text:gsub('[%c"\\]', escapes);
	if is_utf8(text) and not text:find("\194[\128-\159]") and not text:find("\226\128[\168-\174]") then return text; end
	return (text:gsub("[\128-\255][\128-\191]*", letter));
end

-- The names of loggers of sessions: clients, other servers, components, clients with BOSH.
local sessions = { "^c2s%x+$", "^s2sin%x+$", "^s2sout%x+$", "^jcp%x+$", "^bosh%x[%x-]+$" };

-- By name of a logger, the fields that follow from it. Sessions end, so this begins anew when it is large.
local origins, origin_count = {}, 0;

local function origin(name)
	local fields = '","source":"' .. escaped(name);
	local host = name:match("^([^*:]+):.");
	if host then fields = fields .. '","host":"' .. escaped(host); end
	for _, pattern in ipairs(sessions) do
		if name:match(pattern) then fields = fields .. '","session":"' .. name; end
	end
	if origin_count == 1000 then origins, origin_count = {}, 0; end
	origins[name], origin_count = fields .. '","message":"', origin_count + 1;
	return origins[name];
end

local second, second_text;

local function log_json(name, level, message, ...)
	local time = now();
	local whole = floor(time);
	if whole ~= second then
		second, second_text = whole, date('!{"time":"%Y-%m-%dT%H:%M:%S', whole);
	end
	stdout:write(second_text .. (".%03dZ"):format(floor((time - whole) * 1000)) .. '","level":"' .. level
		.. (origins[name] or origin(name)) .. escaped(format(message, ...)) .. '"}\n');
end

local console;
console = logging.register_sink_type("console", function (rule)
	if rule.format ~= "json" then return console(rule); end
	-- Each line is one write, however long it is.
	stdout:setvbuf("no");
	return log_json;
end);
