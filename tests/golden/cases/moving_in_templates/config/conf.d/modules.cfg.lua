plugin_paths = { "/srv" }
modules_enabled = {
	"roster";
	${PROSODY_CORE_MODULES:-}
}
