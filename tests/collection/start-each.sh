# Starts the server once for each module of the collection and prints each start's output, between a line with
# the module's name and a line with the status. mod_what_is_loaded stops the server once it is up.

export PROSODY_DOMAIN=chat.example
for folder in /opt/prosody-modules-available/mod_*; do
	module=${folder##*/mod_}
	enabled=what_is_loaded
	case $module in
	auth_*) setting=PROSODY_AUTHENTICATION=${module#auth_} ;;
	storage_*) setting=PROSODY_STORAGE_VCARD=${module#storage_} ;;
	*) setting='' enabled="$enabled $module" ;;
	esac
	find /var/lib/prosody -mindepth 1 -delete
	echo "=== module $module"
	env PROSODY_MODULES_ENABLED="$enabled" ${setting:+"$setting"} \
		timeout --kill-after 5 30 prosody-entrypoint prosody -F 2>&1
	echo "=== status $?"
done
