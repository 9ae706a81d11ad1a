-- A client of PostgreSQL that never makes the server wait, unlike LuaDBI: answers come in as events. It speaks version 3
-- of the protocol (PostgreSQL's manual, "Frontend/Backend Protocol") and takes the variables of libpq for TLS. This is the
-- body of a function that returns a function.

local base64 = require "util.encodings".base64;
local certmanager = require "core.certmanager";
local hashes = require "util.hashes";
local random_id = require "util.id".long;
local saslprep = require "util.encodings".stringprep.saslprep;
local server = require "net.server";
local socket = require "socket";
local struct = require "util.struct";
local sxor = require "util.strbitop".sxor;
local unix = require "socket.unix";
local verify_identity = require "util.x509".verify_identity;

for _, name in ipairs { "hmac_sha256", "md5", "pbkdf2_hmac_sha256", "sha256" } do
	assert(hashes[name], "Prosody cannot compute " .. name);
end

-- The last addresses of servers by name. A name server may be away for a while.
local addresses = {};

-- As in libpq, this waits for the name server.
local function address_of(host)
	local found = socket.dns.getaddrinfo(host);
	addresses[host] = found and found[1] and found[1].addr or addresses[host];
	return addresses[host];
end

local function message(kind, ...)
	local body = table.concat { ... };
	return kind .. struct.pack(">I4", #body + 4) .. body;
end

-- The messages of SCRAM-SHA-256 (RFC 5802, RFC 7677): the first of the client's, a function that returns its last one for
-- the server's first, and a function that checks the server's last.
local function scram(password)
	local nonce = random_id();
	local bare, signature = "n=,r=" .. nonce, nil;
	local function proof(challenge)
		local whole, salt, iterations = challenge:match("^r=([^,]+),s=([^,]+),i=(%d+)");
		if not whole or whole:sub(1, #nonce) ~= nonce then return nil; end
		local salted = hashes.pbkdf2_hmac_sha256(password, base64.decode(salt), tonumber(iterations));
		local key = hashes.hmac_sha256(salted, "Client Key");
		local last = "c=biws,r=" .. whole;
		local all = bare .. "," .. challenge .. "," .. last;
		signature = hashes.hmac_sha256(hashes.hmac_sha256(salted, "Server Key"), all);
		return last .. ",p=" .. base64.encode(sxor(key, hashes.hmac_sha256(hashes.sha256(key), all)));
	end
	return "n,," .. bare, proof, function (last) return last == "v=" .. base64.encode(signature or ""); end;
end

-- The TLS that libpq's variables ask for: a mode, and whether the server's name is checked.
local function tls_context(mode)
	local options = { protocol = "tlsv1_2+", verify = { "none" } };
	if mode:match("^verify") then
		options.verify, options.cafile = { "peer" }, os.getenv("PGSSLROOTCERT");
		if options.cafile == "system" then options.cafile = "/etc/ssl/certs/ca-certificates.crt"; end
	end
	options.certificate, options.key = os.getenv("PGSSLCERT"), os.getenv("PGSSLKEY");
	return certmanager.create_context("postgresql port 0", "client", options);
end

-- Connects as the `sql` option of Prosody says, and calls `on_end(reason)` once when the connection has ended, whether it was
-- ready before or not. Returns the connection, or nil and a reason.
-- `connection.query(sql, callback)` calls back with rows, or with nil and a reason. `connection.close(reason)` ends it.
local function open(options, on_end)
	local mode = os.getenv("PGSSLMODE") or "prefer";
	local host = options.host or os.getenv("PGHOST") or "/var/run/postgresql";
	local port = tonumber(options.port or os.getenv("PGPORT")) or 5432;
	local user, password = options.username or "prosody", options.password or os.getenv("PGPASSWORD") or "";
	local first, proof, is_signature = scram(saslprep(password) or password);
	local listener, handlers, queries, rows, failure = {}, {}, {}, {}, nil;
	local conn, input, is_ready, is_asked_for_tls, is_unproven, has_ended = nil, "", false, false, false, false;
	local connection = {};

	local function finish(reason)
		if has_ended then return; end
		has_ended = true;
		if conn then conn:close(); end
		for _, query in ipairs(queries) do query.callback(nil, reason); end
		on_end(reason);
	end

	local function send_next()
		if is_ready and queries[1] then
			is_ready, rows, failure = false, {}, nil;
			conn:write(message("Q", queries[1].sql, "\0"));
		end
	end

	function connection.query(sql, callback)
		if has_ended then return callback(nil, "the connection has ended"); end
		queries[#queries + 1] = { sql = sql, callback = callback };
		send_next();
	end

	connection.close = finish;

	local function start()
		local names = ("user\0%s\0database\0%s\0application_name\0prosody-entrypoint\0\0"):format(user, options.database);
		conn:write(message("", struct.pack(">I4", 196608), names));
	end

	-- An error of the server's.
	function handlers.E(body)
		local text = body:match("%zM([^%z]*)") or body:match("^M([^%z]*)") or "an error";
		if #queries == 0 or body:match("^S?[^%z]*FATAL") then return finish(text); end
		failure = text;
	end

	function handlers.R(body)
		local kind, rest = struct.unpack(">I4", body), body:sub(5);
		if kind == 3 then
			conn:write(message("p", password, "\0"));
		elseif kind == 5 then
			local inner = hashes.md5(password .. user, true);
			conn:write(message("p", "md5", hashes.md5(inner .. rest, true), "\0"));
		elseif kind == 10 and ("\0" .. rest):find("\0SCRAM-SHA-256\0", 1, true) then
			is_unproven = true;
			conn:write(message("p", "SCRAM-SHA-256\0", struct.pack(">I4", #first), first));
		elseif kind == 11 then
			local answer = proof(rest);
			if not answer then return finish("the server's challenge is no SCRAM"); end
			conn:write(message("p", answer));
		elseif kind == 12 then
			is_unproven = not is_signature(rest);
			if is_unproven then finish("the server does not know the password"); end
		elseif kind == 0 then
			if is_unproven then finish("the server does not prove that it knows the password"); end
		else
			finish("the server wants an unknown way to log in");
		end
	end

	-- A row.
	function handlers.D(body)
		local row, at = {}, 3;
		for i = 1, (struct.unpack(">I2", body)) do
			local length = struct.unpack(">i4", body, at);
			at = at + 4;
			if length >= 0 then
				row[i] = body:sub(at, at + length - 1);
				at = at + length;
			end
		end
		rows[#rows + 1] = row;
	end

	-- Ready for a query: the last one has its answer.
	function handlers.Z()
		local query = connection.is_open and table.remove(queries, 1);
		connection.is_open, is_ready = true, true;
		local found, reason = not failure and rows or nil, failure;
		if query then query.callback(found, reason); end
		send_next();
	end

	-- The answer to the request for TLS is one byte.
	local function begin_tls(answer)
		is_asked_for_tls = false;
		if answer == "S" and input == "" then
			local context, problem = tls_context(mode);
			if not context then return finish(problem); end
			conn:starttls(context);
		elseif mode == "prefer" then
			start();
		else
			finish("the server has no TLS, and PGSSLMODE is " .. mode);
		end
	end

	function listener.onconnect()
		if is_asked_for_tls or host:sub(1, 1) == "/" or mode == "disable" or mode == "allow" then return start(); end
		is_asked_for_tls = true;
		conn:write(struct.pack(">I4I4", 8, 80877103));
	end

	function listener.onstatus(_, status)
		if status ~= "ssl-handshake-complete" then return; end
		if mode == "verify-full" then
			local certificate = conn:ssl_peercertificate();
			if not certificate or not verify_identity(host, nil, certificate) then
				return finish("the server's certificate is for another name than " .. host);
			end
		end
		start();
	end

	function listener.onincoming(_, data)
		input = input .. (data or "");
		if is_asked_for_tls and input ~= "" then
			local answer = input:sub(1, 1);
			input = input:sub(2);
			begin_tls(answer);
		end
		while not has_ended and #input >= 5 do
			local length = struct.unpack(">I4", input, 2);
			if #input <= length then break; end
			local kind, body = input:sub(1, 1), input:sub(6, length + 1);
			input = input:sub(length + 2);
			if handlers[kind] then handlers[kind](body); end
		end
	end

	function listener.ondisconnect(_, reason)
		conn = nil;
		finish(reason or "the server has closed the connection");
	end

	local problem;
	if host:sub(1, 1) == "/" then
		local client = (type(unix) == "table" and unix.stream or unix)();
		client:settimeout(0);
		local ok;
		ok, problem = client:connect(("%s/.s.PGSQL.%d"):format(host, port));
		if ok then conn, problem = server.wrapclient(client, "unix", 0, listener, "*a"); end
	else
		local address = address_of(host);
		if not address then return nil, "the name " .. host .. " is unknown"; end
		conn, problem = server.addclient(address, port, listener, "*a");
	end
	if not conn then return nil, problem; end
	return connection;
end

return open;
