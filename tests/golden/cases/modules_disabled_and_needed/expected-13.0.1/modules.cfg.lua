-- What is loaded on every virtual host.

plugin_paths = {
	"{output}/community-modules";
}

modules_enabled = {
	"roster";
	"saslauth";
	"tls";
	"blocklist";
	"bookmarks";
	"carbons";
	"dialback";
	"limits";
	"private";
	"smacks";
	"vcard4";
	"vcard_legacy";
	"account_activity";
	"cloud_notify";
	"csi_simple";
	"invites_adhoc";
	"invites_register";
	"ping";
	"register";
	"uptime";
	"version";
	"admin_adhoc";
	"admin_shell";
	"mam";
	"bosh";
	"websocket";
	"s2s_bidi";
	"mimicking";
	"tombstones";
	"outer";
	"alone";
}

modules_disabled = { "adhoc", "middle", "http" }
