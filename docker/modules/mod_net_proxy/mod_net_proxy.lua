-- The PROXY protocol, versions 1 and 2 (https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt).
--
-- Prosody's backends read as much from a socket as there is, and TLS needs the first byte after the header to be still in
-- the socket. So a connection begins with a reader in place of its socket, which takes no byte more than the header has.

module:set_global();

local adns = require "net.adns";
local get_backend = require "net.server".get_backend;
local ip = require "util.ip";
local net = require "util.net";
local now = require "util.time".now;
local portmanager = require "core.portmanager";
local luasocket = require "socket";

local SIGNATURE = "\r\n\r\n\0\r\nQUIT\n";
-- The longest header of version 1.
local LONGEST = 107;
-- How many seconds the addresses of names are used without asking again, and may be missing one.
local LASTING, LACKING = 10, 1;

---- Which proxies are trusted

local networks, names = {}, {};
for trusted in module:get_option_set("proxy_trusted_proxies", { "127.0.0.1", "::1" }) do
	local address, bits = ip.parse_cidr(trusted);
	if address then
		networks[#networks + 1] = { address = address, bits = bits };
	else
		-- Its addresses, by the kind of record.
		names[trusted] = { A = {}, AAAA = {} };
	end
end

-- When the addresses of names were asked for, and the functions to call after the last answer, while some are missing.
local asked, waiting = 0, nil;

-- Asks for the addresses of names, unless it has just been done, and calls `f` afterwards.
local function resolve(f)
	if waiting then
		waiting[#waiting + 1] = f;
		return;
	elseif now() - asked < LACKING then
		return f();
	end
	asked, waiting = now(), { f };
	local missing, resolver = 1, adns.resolver();
	local function answered()
		missing = missing - 1;
		if missing > 0 then return; end
		local functions = waiting;
		waiting = nil;
		for _, call in ipairs(functions) do call(); end
	end
	for host, name in pairs(names) do
		for kind in pairs(name) do
			missing = missing + 1;
			resolver:lookup(function (answer)
				-- Without an answer, those of before stay.
				if answer then name[kind] = {}; end
				for _, record in ipairs(answer or {}) do
					local address = ip.new_ip(tostring(record[kind:lower()]));
					if address then name[kind][address.packed] = true; end
				end
				answered();
			end, host, kind, "IN");
		end
	end
	answered();
end

-- Calls `f` with whether connections from an address are trusted.
local function with_trust(address, f)
	for _, network in ipairs(networks) do
		if network.address.proto == address.proto and ip.match(network.address, address, network.bits) then
			return f(true);
		end
	end
	if next(names) == nil then return f(false); end
	local function is_named()
		for _, name in pairs(names) do
			if name.A[address.packed] or name.AAAA[address.packed] then return true; end
		end
		return false;
	end
	if is_named() and now() - asked < LASTING then return f(true); end
	resolve(function () f(is_named()); end);
end

---- Headers

-- How many more bytes of the header there are for certain: zero at its end, nil if it is none.
local function missing(header)
	local length = #header;
	if length < 12 then
		local is_one = header == SIGNATURE:sub(1, length) or header:sub(1, 6) == ("PROXY "):sub(1, length);
		return is_one and 12 - length or nil;
	elseif header:sub(1, 12) == SIGNATURE then
		if length < 16 then return 16 - length; end
		local high, low = header:byte(15, 16);
		return 16 + high * 256 + low - length;
	elseif header:sub(-2) == "\r\n" then
		return 0;
	elseif header:sub(1, 6) == "PROXY " and length < LONGEST then
		return header:sub(-1) == "\r" and 1 or 2;
	end
end

local function has_family(address, family)
	return address ~= nil and ip.new_ip(address, family) ~= nil;
end

-- Whether a complete header is valid, and the client's address and port in it, if it has them.
local function parse(header)
	if header:sub(1, 6) == "PROXY " then
		if header:sub(7, 13) == "UNKNOWN" then return true; end
		local family, source, destination, port = header:match("^PROXY TCP([46]) (%S+) (%S+) (%d+) %d+\r\n$");
		port = tonumber(port);
		family = "IPv" .. tostring(family);
		local is_valid = has_family(source, family) and has_family(destination, family) and port <= 65535;
		return is_valid, source, port;
	end
	local command, family = header:byte(13, 14);
	-- The proxy's own connection, or one of no or of another family.
	if command == 0x20 or command == 0x21 and family ~= 0x11 and family ~= 0x21 then return true; end
	local size = family == 0x11 and 4 or 16;
	if command ~= 0x21 or #header < 16 + 2 * size + 4 then return false; end
	local high, low = header:byte(17 + 2 * size, 18 + 2 * size);
	return true, net.ntop(header:sub(17, 16 + size)), high * 256 + low;
end

---- Connections

-- A socket of datagrams reads as many bytes as it is asked for, and keeps none.
local datagrams = luasocket.udp();
datagrams:settimeout(0);

local function receive(socket, size)
	datagrams:setfd(socket:getfd());
	local data, problem = datagrams:receive(size);
	datagrams:setfd(-1);
	if data == "" then return nil, "closed"; end
	return data, problem;
end

-- What stands in for a connection's socket.
local function reader(state)
	local socket, functions = state.socket, {};
	function functions:receive()
		if not state.is_trusted then return nil, "timeout"; end
		return receive(socket, missing(state.header));
	end
	function functions:dirty() return false; end
	return setmetatable(functions, { __index = function (_, name)
		return function (_, ...) return socket[name](socket, ...); end;
	end });
end

local states = {};
-- The service on each port.
local services = {};

local function refuse(conn, reason, ...)
	module:log("warn", reason, ...);
	conn:close();
end

-- The server of an open port that a service has for itself: connections take its certificates.
local function tls_server(name)
	for _, _, _, _, port in portmanager.get_active_services():iter(name, nil, nil, nil) do
		if port.tls_cfg then return port.server; end
	end
end

local function hand_over(conn, state, address, port)
	conn.conn, states[conn] = state.socket, nil;
	local proxy = conn:ip();
	if address then
		-- An IPv4 address of a proxy's socket for both families.
		address = address:match("^::[fF][fF][fF][fF]:(%d+%.%d+%.%d+%.%d+)$") or address;
		conn.proxyip, conn.proxyport = proxy, conn:port();
		function conn.ip() return address; end
		function conn.port() return port; end
		conn.clientport = conn.port;
	end
	local name = services[tonumber(conn:serverport())];
	local service = portmanager.get_service(name);
	if not service then
		return refuse(conn, "Closed a connection from %s: there is no service %s", conn:ip(), name);
	end
	module:log("info", "Client %s, port %d, of the proxy %s is passed on to %s", conn:ip(), conn:port(), proxy, name);
	if service.encryption ~= "ssl" then
		conn:setlistener(service.listener);
		if service.listener.onconnect then service.listener.onconnect(conn); end
		return;
	end
	local server = tls_server(name);
	if not server then
		return refuse(conn, "Closed a connection from %s: %s has no port with certificates", conn:ip(), name);
	end
	conn._server = server;
	conn:setlistener(service.listener);
	-- It is called again after the handshake.
	if get_backend() == "epoll" then conn.onconnect = nil; end
	conn:starttls(server.tls_ctx or server._sslctx, true);
end

local listener = {};

function listener.onconnect(conn)
	local address = ip.new_ip(conn:ip() or "");
	if not address then return conn:close(); end
	local state = { header = "", socket = conn.conn, is_trusted = false };
	states[conn], conn.conn = state, reader(state);
	conn:pause();
	with_trust(address, function (is_trusted)
		if states[conn] ~= state then return; end
		state.is_trusted = is_trusted;
		if not is_trusted then
			return refuse(conn, "Closed a connection from %s, which is no trusted proxy", conn:ip());
		end
		-- libevent takes nothing but a real socket.
		local stand_in = conn.conn;
		conn.conn = state.socket;
		conn:resume();
		conn.conn = stand_in;
	end);
end

function listener.onincoming(conn, data)
	local state = states[conn];
	if not state or not data then return; end
	state.header = state.header .. data;
	local size = missing(state.header);
	if size and size > 0 then return; end
	local is_valid, address, port;
	if size then is_valid, address, port = parse(state.header); end
	if not is_valid then return refuse(conn, "Closed a connection from %s without a PROXY header", conn:ip()); end
	hand_over(conn, state, address, port);
end

function listener.ondisconnect(conn)
	states[conn] = nil;
end

local ports = {};
for port, service in pairs(module:get_option("proxy_port_mappings", {})) do
	port = tonumber(port);
	ports[#ports + 1], services[port] = port, service;
end
table.sort(ports);

module:provides("net", {
	name = "proxy";
	listener = listener;
	default_ports = ports;
});
