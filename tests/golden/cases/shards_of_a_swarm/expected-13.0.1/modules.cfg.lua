-- What is loaded on every virtual host.

modules_enabled = {
	"disco";
	"roster";
	"saslauth";
	"tls";
	"blocklist";
	"bookmarks";
	"carbons";
	"dialback";
	"limits";
	"pep";
	"private";
	"smacks";
	"vcard4";
	"vcard_legacy";
	"account_activity";
	"cloud_notify";
	"csi_simple";
	"invites";
	"invites_adhoc";
	"invites_register";
	"ping";
	"register";
	"time";
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
}
