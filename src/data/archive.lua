-- Writes an archive of what `reader` reads. This is the body of a function that takes what it needs.
local options, out, stores, reader, encode, open_writer, fail, say, progress = ...;

local datamanager = stores.datamanager;
local datetime = require "util.datetime";

-- The size of a member with records. A larger one has one record.
local piece = 1024 * 1024;

-- The size limit of a record, in bytes. `restore` has the same.
local largest = 64 * 1024 * 1024;

local add, finish = open_writer(out, os.time());

local function reader_of(text)
	local at = 1;
	return function (length)
		at = at + length;
		return text:sub(at - length, at - 1);
	end;
end

local function add_text(name, text)
	add(name, #text, reader_of(text));
end

local lines, size, members, counts = {}, 0, 0, { records = 0, files = 0, accounts = 0, bytes = 0 };

local function write_lines()
	if #lines == 0 then return; end
	members = members + 1;
	add_text(("records/%06d.ndjson"):format(members), table.concat(lines));
	lines, size = {}, 0;
end

-- By sentence, how often it is true.
local left_out = {};
local unread = 0;

local visit = {};

function visit.left_out(text)
	left_out[text] = (left_out[text] or 0) + 1;
end

function visit.unreadable(text, level)
	unread = unread + 1;
	say(level or "error", "%s", text);
end

function visit.record(record)
	local ok, line = pcall(encode, record);
	if not ok or #line > largest then
		return visit.unreadable(("Not saved: a record of %s%s on %s: %s"):format(record.store,
			record.user and " of " .. record.user or "", record.host, ok and "it is too large" or line));
	end
	lines[#lines + 1] = line .. "\n";
	size = size + #line;
	counts.records = counts.records + 1;
	progress("%d records", counts.records);
	if record.store == "accounts" and record.user then counts.accounts = counts.accounts + 1; end
	if size >= piece then write_lines(); end
end

function visit.upload(path, host, slot)
	local file = io.open(path, "rb");
	-- It may have expired meanwhile.
	if not file then return; end
	local length = file:seek("end");
	file:seek("set");
	local name = ("uploads/%s/%s.bin"):format(datamanager.path_encode(host), datamanager.path_encode(slot));
	add(name, length, function (wanted) return file:read(wanted); end);
	file:close();
	counts.files, counts.bytes = counts.files + 1, counts.bytes + length;
	progress("%d records, %d uploaded files of %d bytes", counts.records, counts.files, counts.bytes);
end

reader.prepare(visit);
add_text("manifest.json", encode {
	format = 1, time = datetime.datetime(), entrypoint = options.version, prosody = prosody.version,
	-- Other hosts are not the account's concern.
	hosts = not reader.account and reader.hosts or nil, account = reader.account and reader.account.jid,
	places = options.migrates and stores.places() or nil,
});
reader.records(visit);
write_lines();
if reader.account and counts.records == 0 then fail(66, "there is no account %s", reader.account.jid); end
if options.migrates then
	if unread > 0 then fail(65, "nothing is migrated, because some data cannot be read"); end
else
	reader.uploads(visit);
end
add_text("end.json", encode { records = counts.records, files = counts.files });
finish();

local sentences = {};
for text in pairs(left_out) do sentences[#sentences + 1] = text; end
table.sort(sentences);
for _, text in ipairs(sentences) do say("warning", "Left out: %s", text); end
if not options.migrates then
	say("info", "Saved: %d records, of them %d accounts, and %d uploaded files of %d bytes", counts.records, counts.accounts,
		counts.files, counts.bytes);
end
return unread == 0 and 0 or 2;
